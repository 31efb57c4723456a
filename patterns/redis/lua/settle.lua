#!lua
-- settle.lua adds what has become of targets of multicasts.
--
-- KEYS  1 {prism:<namespace>}:s:  before an id: its settlements, a hash of identity -> "1" if it is final or "0", and the data
-- ARGV  1 retention  in ms
--       2, 3, 4, 5, 6, ...  id, identity, "1" or "0", data
--
-- Returns nothing.

for _, command in ipairs({{'HGET', KEYS[1], ''}, {'HSET', KEYS[1], '', ''}, {'PEXPIRE', KEYS[1], '1'}}) do
	if not redis.acl_check_cmd(unpack(command)) then
		return redis.error_reply('NOPERM this needs the right to run ' .. command[1] .. ' on ' .. KEYS[1] .. ' and its neighbours')
	end
end
local touched = {}
for i = 2, #ARGV, 4 do
	local key, identity, final = KEYS[1] .. ARGV[i], ARGV[i + 1], ARGV[i + 2]
	local earlier = final == '0' and redis.call('HGET', key, identity)
	if not earlier or string.sub(earlier, 1, 1) == '0' then
		redis.call('HSET', key, identity, final .. ARGV[i + 3])
	end
	touched[key] = true
end
for key in pairs(touched) do
	redis.call('PEXPIRE', key, ARGV[1])
end
return {}
