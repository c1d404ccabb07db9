-- Gives a lease back, if it is still the holder's.
-- KEYS  1 lease
-- ARGV  1 token
-- Reply 1 given back, 0 it was no longer the holder's
local lease = KEYS[1]
local token = ARGV[1]

if redis.pcall('GET', lease) ~= token then
    return 0
end
return redis.call('DEL', lease)
