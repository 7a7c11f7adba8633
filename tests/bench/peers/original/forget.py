"""Deletes what a prefix has left in Redis, and tells how many keys.

forget.py redis://... PREFIX
"""

import sys

from redis import Redis

with Redis.from_url(sys.argv[1]) as redis:
    found = list(redis.scan_iter(f"*{sys.argv[2]}-*"))
    print(redis.delete(*found) if found else 0)
