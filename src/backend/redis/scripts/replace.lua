-- Replaces what lies at the lease's key: a lease by a mark, or a mark by a lease.
-- KEYS  1 lease
-- ARGV  1 what lies there, 2 what replaces it, 3 lifetime of that in milliseconds
-- Reply 1 replaced, 0 something else lies there
local lease = KEYS[1]
local from, to, ttl = ARGV[1], ARGV[2], ARGV[3]

if redis.pcall('GET', lease) ~= from then
    return 0
end
redis.call('SET', lease, to, 'PX', ttl)
return 1
