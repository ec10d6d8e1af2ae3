"""The programs that ours is measured beside. Each file is as plain as a reader of that project's documentation would write it."""
