"""Asks a service of this container how it is: exit status 0 if it can do its work; else what it answers, and 1."""

import sys
import urllib.error
import urllib.request

try:
    with urllib.request.urlopen(sys.argv[1], timeout=8) as answer:  # noqa: S310 (the address is the image's own)
        print(answer.read(1000).decode(errors="replace"))
except urllib.error.HTTPError as error:
    sys.exit(error.read(1000).decode(errors="replace"))
except OSError as error:
    sys.exit(str(error))
