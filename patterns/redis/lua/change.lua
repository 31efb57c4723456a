-- change.lua stands before put, renew, delete, sweep and raise, below outage.lua: what all changes have in common.
--
-- KEYS  1 leases  2 head  3 log  4 the identity's hash (delete and raise alone)
-- ARGV  1 epoch   random text, to become the epoch if this is the first change
--       2 floor   the revision must come out above this one; 0: just count on
--       3 maxlen  entries that the log keeps
--       4 trim    "~" or "=": how exactly the log is cut
--       5 after   how old a mark tells of an outage, in ms: see outage.lua
--       6 name    encoded name of the identity (sweep, put, renew: what stands before it in keys)
--
-- A script checks before its first write that the user may run all of its commands, because Redis undoes nothing. All scripts
-- return {status, ...}.

local leases, head, log, identity = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local after, name = tonumber(ARGV[5]), ARGV[6]

-- keep is for how long Redis keeps a hash after its lease has ended, at the least: a day, in ms. It expires a key when it
-- starts, whatever we think of outages. In the normal course a sweep removes the hash within a second or two.
local keep = 86400000

-- may returns what to reply when the user may not run a command, and else nil.
local function may(...)
	if redis.acl_check_cmd(...) then
		return nil
	end
	return redis.error_reply('NOPERM this change needs the right to run ' .. ... .. ' on ' .. leases .. ' and its neighbours')
end

-- mayLog is may for what revise, note and extend do.
local function mayLog()
	return may('HINCRBY', head, 'revision', '1') or may('HSET', head, 'epoch', '') or may('DEL', log)
		or may('XADD', log, 'MAXLEN', '=', '1', '1-0', 'k', 'p')
end

-- revise takes the next n revisions, and returns the first of them, and the one before, as text, if that is not one less.
local function revise(n, at)
	local last = redis.call('HINCRBY', head, 'revision', n)
	local before = last - n
	if before == 0 then -- there was no head: a log that has survived it tells of another history
		redis.call('HSET', head, 'epoch', ARGV[1], 'seen', at, 'swept', at)
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

-- extend records the outage that ends now, and logs it.
local function extend(at)
	redis.call('HSET', head, 'seen', at, 'swept', since, 'since', since, 'until', back)
	local revision, before = revise(1, at)
	note(revision, before, 'k', 'o', 's', since, 'u', back)
	return revision
end

-- keepUntil has Redis expire the identity's hash at the end of its lease, and a while.
local function keepUntil(key, expires, ttl)
	redis.call('PEXPIREAT', key, string.format('%.0f', expires + math.max(ttl, keep)))
end
