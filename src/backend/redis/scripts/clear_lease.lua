-- Removes what lies at the lease's key, if it isn't a proper lease: of another type, or without a lifetime.
-- KEYS  1 lease
-- Reply 1 removed, 0 left alone
local lease = KEYS[1]

if redis.call('TYPE', lease).ok == 'string' and redis.call('PTTL', lease) ~= -1 then
    return 0
end
return redis.call('DEL', lease)
