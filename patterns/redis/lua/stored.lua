#!lua flags=no-writes
-- stored.lua tells which messages are stored.
--
-- KEYS  1 {prism:<namespace>}:t:  before a topic: its state, see queue.lua
-- ARGV  1 maxage  how long a message is stored, in ms
--       2, 3, 4, 5, ...  topic, id
--
-- Returns 1 or 0 for each message.

local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1])
local out = {}
for i = 2, #ARGV, 2 do
	local entry = redis.call('HGET', KEYS[1] .. ARGV[i], 'm' .. ARGV[i + 1])
	table.insert(out, entry and tonumber(string.match(entry, '^%d+')) >= oldest and 1 or 0)
end
return out
