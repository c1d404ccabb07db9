-- Prolongs a lease, if it is still the holder's.
-- KEYS  1 lease
-- ARGV  1 token, 2 lifetime in milliseconds
-- Reply 1 prolonged, 0 lost
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
