-- Removes what lies at the lease's key, if it isn't a proper lease: of another type, or without a lifetime.
-- KEYS  1 lease
-- Reply 1 removed, 0 left alone
if redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('PTTL', KEYS[1]) ~= -1 then
    return 0
end
return redis.call('DEL', KEYS[1])
