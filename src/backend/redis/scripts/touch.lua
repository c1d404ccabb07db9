-- Gives an entry a new lifetime, if the lease is still the loader's: the primary has the same record still.
-- KEYS  1 entry, 2 lease
-- ARGV  1 token, 2 lifetime in milliseconds, 3 the entry's new `~meta`, empty for none; left out if it stays as it is
-- Reply 1 prolonged, and the lease used up; 0 fenced, and nothing written; -1 there is no entry, and the lease stays
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 0 then
    return -1
end
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], '~meta')
elseif ARGV[3] then
    redis.call('HSET', KEYS[1], '~meta', ARGV[3])
end
redis.call('DEL', KEYS[2])
return 1
