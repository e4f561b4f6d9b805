"""For people: pages that need no script, styles that need no build, and nothing from another host."""
