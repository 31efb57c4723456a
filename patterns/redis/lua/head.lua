#!lua flags=no-writes
-- head.lua tells where the history of a group of keys is, and on which server.
--
-- KEYS  1 head
--
-- Returns {epoch, revision, run id}: nil, nil while there is no head; an empty run id without the right to INFO.

local at = redis.call('HMGET', KEYS[1], 'epoch', 'revision')
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and info:match('run_id:(%w+)')
return {at[1], at[2], run or ''}
