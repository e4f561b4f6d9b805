"""Pages for people. They work without JavaScript and without a build step, and load nothing from other hosts."""
