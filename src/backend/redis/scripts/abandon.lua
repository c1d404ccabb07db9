-- Gives a lease back, if it is still the holder's.
-- KEYS  1 lease
-- ARGV  1 token
-- Reply 1 given back, 0 it was no longer the holder's
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
return redis.call('DEL', KEYS[1])
