#!lua flags=no-writes
-- depth.lua tells how many messages are stored in all queues: see queue.lua. It looks at 258 slices, whatever is stored. What
-- became too old within a slice that reaches into what did not is counted still.
--
-- KEYS  1 {prism:<namespace>}:d:  before a slice
-- ARGV  1 maxage  how long a message is stored, in ms
--
-- Returns the number.

local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000)
local width = math.ceil(tonumber(ARGV[1]) / 256)
local n = 0
-- Entries may be a little ahead of the clock, where that was put back.
for slice = math.floor((at - tonumber(ARGV[1])) / width), math.floor(at / width) + 1 do
	n = n + (redis.call('HGET', string.format('%s%.0f:%.0f', KEYS[1], width, slice), 'n') or 0)
end
return {n}
