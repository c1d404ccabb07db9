-- Stores a loaded entry, if the lease is still the loader's.
-- KEYS  1 entry, 2 lease
-- ARGV  1 token, 2 lifetime in milliseconds, 3.. field, value, field, value ..; or to store nothing, 3 the mark for the lease
-- Reply 1 stored, and the lease used up; 0 fenced, and nothing written
local entry, lease = KEYS[1], KEYS[2]
local token, ttl, mark = ARGV[1], ARGV[2], ARGV[3]

if redis.pcall('GET', lease) ~= token then
    return 0
end
redis.call('DEL', entry)
if #ARGV == 3 then
    redis.call('SET', lease, mark, 'PX', ttl)
    return 1
end
redis.call('HSET', entry, unpack(ARGV, 3))
redis.call('PEXPIRE', entry, ttl)
-- The lease goes last: while a slot moves, HSET of a key that was just deleted is refused, and this is run again.
redis.call('DEL', lease)
return 1
