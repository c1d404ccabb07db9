-- Replaces what lies at the lease's key: a lease by a mark, or a mark by a lease.
-- KEYS  1 lease
-- ARGV  1 what lies there, 2 what replaces it, 3 lifetime of that in milliseconds
-- Reply 1 replaced, 0 something else lies there
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
