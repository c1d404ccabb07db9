-- Removes an entry and revokes the load in flight. A script without a shebang, because the server refuses
-- MULTI .. DEL, but not this, when it has reached maxmemory.
-- KEYS  1 entry, 2 lease
-- Reply 1 the entry was there, 0 it was not
local entry, lease = KEYS[1], KEYS[2]

redis.call('DEL', lease)
return redis.call('DEL', entry)
