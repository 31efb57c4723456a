-- outage.lua stands before all scripts of a registry, below their first line: by which rule leases end.
--
-- An outage ends no lease. Sweeps leave a mark in the head about once a second: `seen`. A mark that is older than the registry's
-- OutageAfter says that since then nobody has reached Redis, so nobody could renew anything, whether Redis was away, or the way
-- to it, or all proxies. The outage lasts until a script runs again, and whatever had not ended at its begin lasts for its TTL
-- from its end on. The next change, or sweep, records that in the head: `since` and `until`. Until one does, every script
-- finds it by itself and takes the present for its end. So there is no moment at which it is not known.
--
-- What is stored of a lease stays as it is until a sweep meets it when it is due, and stores when it ends by this rule. To keep
-- one pair in the head is enough for that. `swept` is when a sweep last met all that was due, and no stored end is before it:
-- whatever had one was removed, or has a later one. An outage begins at swept. When there was one before, it is lost from the
-- head, but not from the rule: max(max(e, until + ttl), new until + ttl) is max(e, new until + ttl), for the new until is later,
-- and every e is beyond swept. Where no sweep has met everything between two outages, swept is what it was, so both count as
-- one that began with the first, and what that has saved is not lost.

local seen, swept, since, back -- in ms of the Unix epoch; back: until

-- now returns the time in ms of the Unix epoch.
local function now()
	local t = redis.call('TIME')
	return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- outage reads what the head says, and tells whether an outage ends now that is not recorded yet.
local function outage(head, after, at)
	local h = redis.call('HMGET', head, 'seen', 'swept', 'since', 'until')
	seen, swept, since, back = tonumber(h[1]), tonumber(h[2]), tonumber(h[3]), tonumber(h[4])
	if not seen or at - seen <= after then
		return false
	end
	since, back = swept or seen, at
	return true
end

-- ends returns when a lease ends of which a hash says e and t. e is false without a hash, '0' without an end.
local function ends(e, t)
	if not e then
		return 0
	elseif e == '0' then
		return math.huge
	end
	e = tonumber(e)
	if since and e > since then
		return math.max(e, back + (tonumber(t) or 0))
	end
	return e
end

-- live tells whether a lease lasts.
local function live(e, t, at)
	return at < ends(e, t)
end

-- shown returns an end as it is told: '0' without one.
local function shown(e, t)
	if not since or not e then
		return e
	end
	local last = ends(e, t)
	return last == math.huge and '0' or string.format('%.0f', last)
end

-- count counts live identities; hashes begin with prefix. After an outage it looks at what is due and not swept, which may
-- last: of more than a few hundred, those that were due during the outage count, and others do not, until a sweep has met them.
local function count(leases, prefix, at)
	local n = redis.call('ZCOUNT', leases, string.format('(%.0f', at), '+inf')
	if not since then
		return n
	end
	local most, saved = 500, 0
	local due = redis.call('ZRANGE', leases, string.format('(%.0f', since), string.format('%.0f', at), 'BYSCORE', 'LIMIT', '0', most)
	for i = 1, #due do
		local h = redis.call('HMGET', prefix .. due[i], 'e', 't')
		if live(h[1], h[2], at) then
			saved = saved + 1
		end
	end
	if #due == most then
		local during = redis.call('ZCOUNT', leases, string.format('(%.0f', since), string.format('%.0f', math.min(at, back)))
		saved = saved + math.max(during - most, 0)
	end
	return n + saved
end
