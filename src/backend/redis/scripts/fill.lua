-- Stores a loaded entry, if the lease is still the loader's.
-- KEYS  1 entry, 2 lease
-- ARGV  1 token, 2 lifetime in milliseconds, 3.. field, value, field, value ..; or to store nothing, 3 the mark for the lease
-- Reply 1 stored, and the lease used up; 0 fenced, and nothing written
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
redis.call('DEL', KEYS[1])
if #ARGV == 3 then
    redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
    return 1
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
-- The lease goes last: while a slot moves, HSET of a key that was just deleted is refused, and this is run again.
redis.call('DEL', KEYS[2])
return 1
