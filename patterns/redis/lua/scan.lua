#!lua flags=no-writes
-- scan.lua returns one batch of a scan: live identities that match a filter.
--
-- A batch ends when its cost, estimated in nanoseconds, reaches the budget. What it has read of the leases and not looked at
-- goes back to the caller, who hands it in again; each batch makes progress. An identity that is too costly to evaluate is
-- taken for a match: the caller checks again.
--
-- KEYS  1 leases  2 head
-- ARGV  1 prefix    what the keys of identities begin with
--       2 cursor    "0" to begin with; empty: the leases have been read
--       3 count     how many members to read at once
--       4 budget
--       5 filter    as filter.go describes it; empty: everything
--       6 after     how old a mark tells of an outage, in ms: see outage.lua
--       7… members  left over by the batch before
--
-- Returns {run id of this server, to which the cursor belongs; next cursor; members left over; matches}. Matches are flat:
-- member, m, t, r, e, v.

local byte, find, format, sub = string.byte, string.find, string.format, string.sub
local call, decode, null = redis.call, cjson.decode, cjson.null
local type, tonumber, pcall, error = type, tonumber, pcall, error

-- Costs in nanoseconds, measured. Decoding takes three times as long at worst.
local VISIT, READ, TAKE, TAKE_BYTE, DECODE, DECODE_BYTE, SEEK, SEEK_BYTE = 2000, 10000, 2500, 1, 300, 10, 100, 0.5
local CLAUSE, ELEMENT, FIND_BYTE, ORDER_CHUNK, FILTER_BYTE = 200, 100, 8, 300, 30
-- The most bytes of metadata to decode, and the most to spend on evaluating them, before an identity is taken unseen.
local MOST_BYTES, MOST_WORK = 32768, 700000

local work = 0 -- on the identity that is being evaluated

local function spend(cost)
	work = work + cost
	if work > MOST_WORK then
		error('too costly')
	end
end

-- What cjson leaves of a value (metadata.go): a string that begins with NUL is an integer, an empty array, or escaped.
local function kind(v)
	local t = type(v)
	if t == 'string' then
		if byte(v, 1) ~= 0 then
			return 'string'
		end
		local mark = byte(v, 2)
		return mark == 105 and 'number' or mark == 91 and 'array' or 'string'
	elseif t == 'table' then
		return v[1] ~= nil and 'array' or 'object'
	elseif t == 'boolean' then
		return 'bool'
	elseif v == null then
		return 'null'
	end
	return t
end

local function plain(s)
	return byte(s, 1) == 0 and sub(s, 2) or s
end

-- A number as the nearest float64 and what is missing, which is below 2^11: the order of both is the order of numbers.
local function number(v)
	if type(v) == 'number' then
		return v, 0
	end
	local digits = sub(v, 3)
	local nearest = tonumber(digits)
	local rest = tonumber(sub(digits, -6)) - tonumber(sub(format('%.0f', nearest), -6))
	rest = (rest + 500000) % 1000000 - 500000
	return nearest, byte(digits, 1) == 45 and -rest or rest
end

-- Below, at or above zero as a is below, at or above b, byte by byte. (Lua's < would ask the locale.)
local function order(a, b)
	if a == b then
		return 0
	end
	local i = 1
	while sub(a, i, i + 31) == sub(b, i, i + 31) do
		i = i + 32
		spend(ORDER_CHUNK)
	end
	while byte(a, i) == byte(b, i) do
		i = i + 1
	end
	return (byte(a, i) or -1) - (byte(b, i) or -1)
end

-- Whether a test holds for a value or an element of it. Missing values never come here.
local function any(test)
	return function(v)
		if type(v) ~= 'table' then
			return test(v)
		end
		for i = 1, #v do
			spend(ELEMENT)
			if test(v[i]) then
				return true
			end
		end
		return false
	end
end

-- Tests of an order: holds is told the order of a value and the operand.
local function ordered(holds)
	return function(operand)
		local wanted = kind(operand)
		if wanted == 'number' then
			local f, d = number(operand)
			return any(function(v)
				if type(v) == 'number' then
					return holds(v < f and -1 or v > f and 1 or -d)
				elseif kind(v) ~= 'number' then
					return false
				end
				local g, e = number(v)
				return holds(g < f and -1 or g > f and 1 or e - d)
			end)
		end
		operand = plain(operand)
		return any(function(v)
			return kind(v) == 'string' and holds(order(plain(v), operand))
		end)
	end
end

-- Tests of a string.
local function text(holds)
	return function(operand)
		operand = type(operand) == 'string' and plain(operand)
		return any(function(v)
			return kind(v) == 'string' and holds(plain(v), operand)
		end)
	end
end

-- Each operator makes a test of its operand. Scalars are equal when what cjson leaves of them is.
local operators = {
	lt = ordered(function(c) return c < 0 end),
	lte = ordered(function(c) return c <= 0 end),
	gt = ordered(function(c) return c > 0 end),
	gte = ordered(function(c) return c >= 0 end),
	text = text(function() return true end),
	startswith = text(function(v, prefix) return sub(v, 1, #prefix) == prefix end),
	endswith = text(function(v, suffix) return suffix == '' or sub(v, -#suffix) == suffix end),
}

function operators.eq(operand)
	return any(function(v) return v == operand end)
end

operators['in'] = function(operand)
	local set = {}
	if type(operand) == 'table' then
		for i = 1, #operand do
			set[operand[i]] = true
		end
	end
	return any(function(v) return set[v] == true end)
end

function operators.contains(operand)
	local part = kind(operand) == 'string' and plain(operand)
	local equal = any(function(v) return v == operand end)
	return function(v)
		if type(v) == 'table' then
			return equal(v)
		elseif not part or kind(v) ~= 'string' then
			return false
		end
		spend(#v * (FIND_BYTE + #part / 20))
		return find(plain(v), part, 1, true) ~= nil
	end
end

function operators.exists()
	return function() return true end
end

function operators.type(operand)
	return function(v) return kind(v) == operand end
end

local compile

local function all(args, outcome)
	local tests = {}
	for i = 1, type(args) == 'table' and #args or 0 do
		tests[i] = compile(args[i])
	end
	return function(metadata)
		for i = 1, #tests do
			if tests[i](metadata) ~= outcome then
				return not outcome
			end
		end
		return outcome
	end
end

-- Makes a function of a clause: metadata to whether it holds.
function compile(clause)
	if clause.o == 'and' then
		return all(clause.a, true)
	elseif clause.o == 'or' then
		return all(clause.a, false)
	end
	local path, test, negated = {}, operators[clause.o](clause.v), clause.n == true
	for i = 1, #clause.p do
		path[i] = plain(clause.p[i])
	end
	return function(v)
		spend(CLAUSE)
		for i = 1, #path do
			if type(v) ~= 'table' then
				return negated
			end
			v = v[path[i]]
		end
		if v == nil then
			return negated
		end
		return test(v) ~= negated
	end
end

local prefix, cursor, count, budget, filter = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local spent, holds, needles = 0, nil, {}
if filter ~= '' then
	spent = #filter * FILTER_BYTE
	filter = decode(filter)
	holds, needles = compile(filter.q), filter.w or needles
end
local moment = now()
outage(KEYS[2], tonumber(ARGV[6]), moment)
local matches, n = {}, 0

local function evaluate(m)
	return holds(decode(m))
end

local function add(member, m, t, r, e, v)
	matches[n + 1], matches[n + 2], matches[n + 3], matches[n + 4], matches[n + 5], matches[n + 6] = member, m, t, r, e, v
	n = n + 6
	spent = spent + TAKE + TAKE_BYTE * #m
end

-- Looks at one identity, or returns false and leaves it for a batch of its own.
local visits = 0
local function visit(member)
	local key = prefix .. member
	spent = spent + VISIT
	visits = visits + 1
	if not holds then
		local h = call('HMGET', key, 'm', 't', 'r', 'e', 'v')
		if h[1] and live(h[4], h[2], moment) then
			add(member, h[1], h[2], h[3], shown(h[4], h[2]), h[5])
		end
		return true
	end
	local m = call('HGET', key, 'm')
	if not m then
		return true
	end
	for i = 1, #needles do
		spent = spent + SEEK + SEEK_BYTE * #m
		if not find(m, needles[i], 1, true) then
			return true
		end
	end
	if #m <= MOST_BYTES then
		local cost = DECODE + DECODE_BYTE * #m
		if visits > 1 and spent + cost > budget then
			return false
		end
		work = 0
		local ok, hit = pcall(evaluate, m)
		spent = spent + cost + work
		if ok and not hit then
			return true
		end
	end
	local h = call('HMGET', key, 't', 'r', 'e', 'v')
	if live(h[3], h[1], moment) then
		add(member, m, h[1], h[2], shown(h[3], h[1]), h[4])
	end
	return true
end

local members, at, step = ARGV, 7, 1
local reads = 0
while true do
	while at <= #members and (visits == 0 or spent < budget) and visit(members[at]) do
		at = at + step
	end
	if at <= #members or cursor == '' or (visits + reads > 0 and spent >= budget) then
		break
	end
	local page = call('ZSCAN', KEYS[1], cursor, 'COUNT', count)
	cursor = page[1] ~= '0' and page[1] or ''
	members, at, step = page[2], 1, 2
	reads = reads + 1
	spent = spent + READ
end

local rest = {}
for i = at, #members, step do
	rest[#rest + 1] = members[i]
end
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and info:match('run_id:(%w+)')
return {run or '', cursor, rest, matches}
