package main

import "math"

// costs are what one of each takes, as measured: CPU in microseconds, memory in bytes.
type costs struct {
	redisIdentity float64 // memory of Redis for an identity
	redisEntry    float64 // and for an entry of its change log
	proxyIdle     float64 // memory of a proxy
	proxyIdentity float64 // and for each identity of its copy
	natsIdentity  float64 // memory of a NATS server for an identity that somebody is attached to
	stream        float64 // memory of a proxy for a stream of one identity, on a connection with others
	connection    float64 // and for one on a connection of its own

	heartbeat, register change

	enumerate                 float64 // CPU of a proxy, for 100 identities with metadata
	targetProxy, targetNATS   float64 // CPU for a target of a multicast with acks, of 100
	redisCalls, followerBytes float64 // commands for a heartbeat; bytes that each further proxy is told of it
}

// change is what a change costs, in microseconds of CPU.
type change struct {
	proxy    float64 // of the proxy that makes it
	redis    float64 // of Redis, with that proxy alone
	follower float64 // of each further proxy, which follows
	feeding  float64 // of Redis, for each further proxy
}

// costsOf reads costs from what was measured.
func costsOf(found map[string]*Measured) costs {
	units, targets := found["units"], found["targets"]
	idle, some, many := units.at("memory", 0), units.series("memory")[1], units.last("memory")
	few, all := targets.series("nats")[0], targets.last("nats")
	n := float64(many.X)
	alone, followed := units.at("heartbeat", 0), units.at("heartbeat", 2)
	multicast := units.at("multicast", 0)
	return costs{
		redisIdentity: (many.Memory["redis_used"] - many.Memory["redis_log"] - idle.Memory["redis_used"]) / n,
		redisEntry:    some.Memory["redis_log"] / float64(some.X),
		proxyIdle:     idle.Memory[kindProxy],
		proxyIdentity: (many.Memory[kindProxy] - idle.Memory[kindProxy]) / n,
		natsIdentity:  max(0, all.Memory[kindNATS]-few.Memory[kindNATS]) / float64(all.X),
		stream:        found["subscribers"].last("streams").Other["bytes_per_stream"],
		connection:    units.last("connections").Other["bytes_per_stream"],
		heartbeat:     changeOf(alone, followed),
		register:      changeOf(units.at("register", 0), units.at("register", 2)),
		enumerate:     units.at("enumerate", 0).CPU[kindProxy],
		targetProxy:   multicast.CPU[kindProxy] / 100,
		targetNATS:    multicast.CPU[kindNATS] / 100,
		redisCalls:    alone.Other["redis_calls"],
		followerBytes: max(0, followed.Other["redis_bytes_out"]-alone.Other["redis_bytes_out"]) / 2,
	}
}

// changeOf compares a proxy alone with one that two others follow.
func changeOf(alone, followed Point) change {
	return change{
		proxy: alone.CPU[kindProxy], redis: alone.CPU[kindRedis], follower: followed.CPU[kindFollower] / 2,
		feeding: max(0, followed.CPU[kindRedis]-alone.CPU[kindRedis]) / 2,
	}
}

// What a machine for a proxy has, and how much of everything is used at most.
const (
	proxyCores  = 8
	proxyMemory = 32 << 30
	fullCPU     = 0.5
	fullMemory  = 0.75
	// partMost is the most identities of a namespace, which is what a proxy has a copy of.
	partMost = 2_000_000
	// logEntries is the default of change_log.
	logEntries = 65_536
)

// provision is what to provide, for one namespace unless it says otherwise.
type provision struct {
	identities  float64 // of all namespaces
	namespaces  int
	beats       float64 // heartbeats a second, of all namespaces
	redisMemory float64
	redisCores  float64 // busy
	shards      int
	proxies     int
	proxyMemory float64 // of each
	proxyCores  float64 // of each, busy
	news        float64 // bytes a second to each proxy
	natsMemory  float64 // of each server of the cluster
}

// provide computes it for identities whose programs heartbeat each third of their TTL, in seconds, and are each connected to a
// proxy. A namespace is divided further where that takes fewer cores in all, because less has to be followed.
func (c costs) provide(identities, ttl float64) (best provision) {
	least := math.Inf(1)
	for namespaces := int(math.Ceil(identities / partMost)); namespaces < 1<<16; namespaces *= 2 {
		p, fits := c.divided(identities, ttl, namespaces)
		if cores := float64(namespaces * (p.proxies*proxyCores + p.shards)); fits && cores < least {
			best, least = p, cores
		}
	}
	return best
}

// mostProxies is the most proxies of a namespace.
const mostProxies = 64

// divided computes it for so many namespaces.
func (c costs) divided(identities, ttl float64, namespaces int) (p provision, fits bool) {
	n := identities / float64(namespaces)
	beats := 3 * n / ttl
	p = provision{
		identities: identities, namespaces: namespaces, beats: 3 * identities / ttl, news: beats * c.followerBytes,
		redisMemory: n*c.redisIdentity + logEntries*c.redisEntry, natsMemory: n * c.natsIdentity,
	}
	for p.proxies = 2; p.proxies < mostProxies; p.proxies++ {
		memory, cores := c.proxy(n, beats, p.proxies-1) // one may be away
		if fits = memory <= proxyMemory*fullMemory && cores <= proxyCores*fullCPU; fits {
			break
		}
	}
	p.proxyMemory, p.proxyCores = c.proxy(n, beats, p.proxies)
	p.redisCores = beats * (c.heartbeat.redis + float64(p.proxies-1)*c.heartbeat.feeding) / 1e6
	p.shards = max(1, int(math.Ceil(p.redisCores/fullCPU)))
	return p, fits
}

// proxy is what each of so many proxies uses.
func (c costs) proxy(n, beats float64, proxies int) (memory, cores float64) {
	of := float64(proxies)
	memory = c.proxyIdle + n*c.proxyIdentity + n/of*c.connection
	cores = (beats/of*c.heartbeat.proxy + beats*(1-1/of)*c.heartbeat.follower) / 1e6
	return memory, cores
}
