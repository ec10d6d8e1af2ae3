def test_a(ask): 
    assert ask
