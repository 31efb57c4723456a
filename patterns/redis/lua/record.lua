#!lua
-- record.lua stores the record of a multicast, and lets the oldest go when there are too many. It is refused as a whole when
-- Redis is at maxmemory.
--
-- KEYS  1 {prism:<namespace>}:m:  before an id: the record, a hash with s summary, k key, and t1, t2, ... targets
--       2 {prism:<namespace>}:s:  before an id: its settlements, see settle.lua
--       3 {prism:<namespace>}:k:  before an idempotency key: the id of the record that has it
--       4 {prism:<namespace>}:ids  zset of all ids, all with score 0: in byte order
-- ARGV  1 how        "begin": not when a kept record has the key; "replace": only when a record with the id is kept and has the
--                    summary "was"; "finish": in any case
--       2 retention  in ms, from when the record is first stored
--       3 limit      most records
--       4 id  5 key  6 summary  7 was, or ""  8, ... targets
--
-- Returns {} when it is stored; else {id, summary} of the record that stands in the way, "" for the summary of one that is missing.

local records, settlements, keys, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local how, id, key = ARGV[1], ARGV[4], ARGV[5]

for _, command in ipairs({
	{'GET', keys}, {'HGET', records, 's'}, {'HSET', records, 's', ''}, {'DEL', records, settlements, keys}, {'PEXPIRE', records, '1'},
	{'PTTL', records}, {'SET', keys, '', 'PX', '1'}, {'ZADD', ids, '0', ''}, {'ZCARD', ids}, {'ZPOPMIN', ids},
}) do
	if not redis.acl_check_cmd(unpack(command)) then
		return redis.error_reply('NOPERM this needs the right to run ' .. command[1] .. ' on ' .. ids .. ' and its neighbours')
	end
end

-- owner returns the id of the kept record that has the key, with its summary.
local function owner()
	local other = redis.call('GET', keys .. key)
	local summary = other and redis.call('HGET', records .. other, 's')
	return summary and other, summary
end

local record = records .. id
if how == 'replace' then
	local is = redis.call('HGET', record, 's')
	if is ~= ARGV[7] then
		return {id, is or ''}
	end
end
local retention = redis.call('PTTL', record)
if retention <= 0 then
	retention = ARGV[2]
end
if key ~= '' then
	local other, summary = owner()
	if other and how == 'begin' then
		return {other, summary}
	end
	if not other or other == id then
		redis.call('SET', keys .. key, id, 'PX', retention)
	end
end
redis.call('DEL', record)
redis.call('HSET', record, 's', ARGV[6], 'k', key)
for i = 8, #ARGV do
	redis.call('HSET', record, 't' .. (i - 7), ARGV[i])
end
redis.call('PEXPIRE', record, retention)
redis.call('PEXPIRE', settlements .. id, ARGV[2])
redis.call('ZADD', ids, 0, id)
redis.call('PEXPIRE', ids, ARGV[2])
for _ = 1, redis.call('ZCARD', ids) - ARGV[3] do
	local old = redis.call('ZPOPMIN', ids)[1]
	local its = redis.call('HGET', records .. old, 'k')
	if its and redis.call('GET', keys .. its) == old then
		redis.call('DEL', keys .. its)
	end
	redis.call('DEL', records .. old, settlements .. old)
end
return {}
