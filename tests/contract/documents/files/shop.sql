-- Things to sell.
CREATE TABLE IF NOT EXISTS thing (
    id int
);

CREATE OR REPLACE FUNCTION shop.price(thing int) RETURNS int AS $$
    SELECT 5;
$$ LANGUAGE sql;
