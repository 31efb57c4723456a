-- change.lua stands before put, renew, delete and sweep, below their first line: what all changes have in common.
--
-- KEYS  1 leases  2 head  3 log  4 the identity's hash (not for sweep)
-- ARGV  1 epoch   random text, to become the epoch if this is the first change
--       2 floor   the revision must come out above this one; 0: just count on
--       3 maxlen  entries that the log keeps
--       4 trim    "~" or "=": how exactly the log is cut
--       5 name    encoded name of the identity (sweep: what stands before it in keys)
--
-- A script checks before its first write that the user may run all of its commands, because Redis undoes nothing. All scripts
-- return {status, ...}.

local leases, head, log, identity = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local name = ARGV[5]

-- now returns the time in ms of the Unix epoch.
local function now()
	local t = redis.call('TIME')
	return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- live tells whether a lease that ends at e lasts: e is false without a hash, '0' without an end.
local function live(e, at)
	return e and (e == '0' or at < tonumber(e))
end

-- may returns what to reply when the user may not run a command, and else nil.
local function may(...)
	if redis.acl_check_cmd(...) then
		return nil
	end
	return redis.error_reply('NOPERM this change needs the right to run ' .. ... .. ' on ' .. leases .. ' and its neighbours')
end

-- mayLog is may for what revise and note do.
local function mayLog()
	return may('HINCRBY', head, 'revision', '1') or may('HSET', head, 'epoch', '') or may('DEL', log)
		or may('XADD', log, 'MAXLEN', '=', '1', '1-0', 'k', 'p')
end

-- revise takes the next n revisions, and returns the first of them, and the one before, as text, if that is not one less.
local function revise(n)
	local last = redis.call('HINCRBY', head, 'revision', n)
	local before = last - n
	if before == 0 then -- there was no head: a log that has survived it tells of another history
		redis.call('HSET', head, 'epoch', ARGV[1])
		redis.call('DEL', log)
	end
	local floor = tonumber(ARGV[2])
	if before >= floor then
		return before + 1, nil
	end
	redis.call('HSET', head, 'revision', floor + n)
	return floor + 1, string.format('%.0f', before)
end

-- note appends an entry to the log.
local function note(revision, before, ...)
	local id = string.format('%.0f-0', revision)
	if before then
		return redis.call('XADD', log, 'MAXLEN', ARGV[4], ARGV[3], id, 'b', before, ...)
	end
	return redis.call('XADD', log, 'MAXLEN', ARGV[4], ARGV[3], id, ...)
end
