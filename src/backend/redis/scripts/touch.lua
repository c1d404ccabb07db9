-- Gives an entry a new lifetime, if the lease is still the loader's: the primary has the same record still.
-- KEYS  1 entry, 2 lease
-- ARGV  1 token, 2 lifetime in milliseconds, 3 the entry's new `~meta`, empty for none; left out if it stays as it is
-- Reply 1 prolonged, and the lease used up; 0 fenced, and nothing written; -1 there is no entry, and the lease stays
local entry, lease = KEYS[1], KEYS[2]
local token, ttl, meta = ARGV[1], ARGV[2], ARGV[3]

if redis.pcall('GET', lease) ~= token then
    return 0
end
if redis.call('PEXPIRE', entry, ttl) == 0 then
    return -1
end
if meta == '' then
    redis.call('HDEL', entry, '~meta')
elseif meta then
    redis.call('HSET', entry, '~meta', meta)
end
redis.call('DEL', lease)
return 1
