-- Prolongs a lease, if it is still the holder's.
-- KEYS  1 lease
-- ARGV  1 token, 2 lifetime in milliseconds
-- Reply 1 prolonged, 0 lost
local lease = KEYS[1]
local token, ttl = ARGV[1], ARGV[2]

if redis.pcall('GET', lease) ~= token then
    return 0
end
return redis.call('PEXPIRE', lease, ttl)
