-- Says that a dispatcher is present. ARGV: its name, the one that it had before or nothing, after how many
-- milliseconds those that were not heard of are forgotten, and until when it waits for the answer, in microseconds: later it
-- is not present any more. Answers the time, in microseconds.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[4]) then
  return redis.error_reply('ERR asked too long ago')
end
-- First: a Redis that is full takes a ZADD behind a ZREM, and nothing else of ours.
redis.call('ZADD', 'signalpost:present', string.format('%.0f', now), ARGV[1])
if ARGV[2] ~= '' then
  redis.call('ZREM', 'signalpost:present', ARGV[2])
end
redis.call('ZREMRANGEBYSCORE', 'signalpost:present', '-inf', string.format('%.0f', now - ARGV[3] * 1000))
redis.call('PEXPIRE', 'signalpost:present', ARGV[3])
return { now }
