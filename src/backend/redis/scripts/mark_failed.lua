-- Puts the mark of a failed load in the place of its lease, if that is still the holder's.
-- KEYS  1 lease
-- ARGV  1 token, 2 mark, 3 lifetime of the mark in milliseconds
-- Reply 1 marked, 0 it was no longer the holder's
local lease = KEYS[1]
local token, mark, pause = ARGV[1], ARGV[2], ARGV[3]

if redis.pcall('GET', lease) ~= token then
    return 0
end
redis.call('SET', lease, mark, 'PX', pause)
return 1
