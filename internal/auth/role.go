package auth

import "slices"

// Role is what a rule lets callers do.
type Role string

// The roles. Each stands for the operations that Operation.Role gives it.
const (
	RoleRegister  Role = "register"
	RoleEnumerate Role = "enumerate"
	RoleMulticast Role = "multicast"
	RoleSubscribe Role = "subscribe"
	RoleWatch     Role = "watch"
	// RoleAdmin has every operation.
	RoleAdmin Role = "admin"
)

// Roles lists every role.
func Roles() []Role {
	return []Role{RoleRegister, RoleEnumerate, RoleMulticast, RoleSubscribe, RoleWatch, RoleAdmin}
}

// roles is a set of roles, by their places in Roles.
type roles uint8

func (r Role) bit() roles {
	if i := slices.Index(Roles(), r); i >= 0 {
		return 1 << i
	}
	return 0
}

// Operation is something that can be done in a namespace.
type Operation string

// The operations.
const (
	OpRegister        Operation = "register"
	OpHeartbeat       Operation = "heartbeat"
	OpUnregister      Operation = "unregister"
	OpEnumerate       Operation = "enumerate"
	OpCount           Operation = "count"
	OpExplain         Operation = "explain"
	OpMulticast       Operation = "multicast"
	OpGetMulticast    Operation = "get multicast"
	OpListMulticasts  Operation = "list multicasts"
	OpCancelMulticast Operation = "cancel multicast"
	OpSubscribe       Operation = "subscribe"
	OpAck             Operation = "ack"
	OpWatch           Operation = "watch"
	// OpListNamespaces is to list namespaces. The list shows those in which the caller has a role, see Policy.Roles; who has a
	// grant for it is told the same.
	OpListNamespaces Operation = "list namespaces"
	// OpAdmin is everything else, for operators only.
	OpAdmin Operation = "admin"
)

// need is a role that an operation needs.
type need struct {
	role Role
	bit  roles // of the role, and of admin
}

var needs = map[Operation]need{
	OpRegister: needed(RoleRegister), OpHeartbeat: needed(RoleRegister), OpUnregister: needed(RoleRegister),
	OpEnumerate: needed(RoleEnumerate), OpCount: needed(RoleEnumerate), OpExplain: needed(RoleEnumerate),
	OpMulticast: needed(RoleMulticast), OpGetMulticast: needed(RoleMulticast), OpListMulticasts: needed(RoleMulticast),
	OpCancelMulticast: needed(RoleMulticast),
	OpSubscribe:       needed(RoleSubscribe), OpAck: needed(RoleSubscribe),
	OpWatch:          needed(RoleWatch),
	OpListNamespaces: needed(RoleAdmin), OpAdmin: needed(RoleAdmin),
}

func needed(role Role) need { return need{role, role.bit() | RoleAdmin.bit()} }

// Role returns the role that the operation needs; RoleAdmin has it too. For what is no operation it is "", which nobody has.
func (o Operation) Role() Role { return needs[o].role }
