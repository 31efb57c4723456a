#!lua flags=no-writes
-- head.lua tells where the history of a group of keys is, on which server, and whether an outage is not part of it yet.
--
-- KEYS  1 head
-- ARGV  1 after  how old a mark tells of an outage, in ms
--
-- Returns {epoch, revision, run id, since, until}: nil, nil while there is no head; an empty run id without the right to INFO;
-- 0, 0 without an outage that nobody has recorded: see outage.lua.

local at = redis.call('HMGET', KEYS[1], 'epoch', 'revision')
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and info:match('run_id:(%w+)')
local found = outage(KEYS[1], tonumber(ARGV[1]), now())
return {at[1], at[2], run or '', found and since or 0, found and back or 0}
