package sandbox

// consumerRequest processes a request of a consumer's socket.
func (k *socket) consumerRequest(c *call) reply {
	if a, ok := k.commonRequest(c); ok {
		return a
	}
	switch c.typ {
	case "cm.ConsumerRequestConversation":
		return k.consumerRequestConversation(c)
	case "cqm.SubscribeExConversations":
		return k.subscribeConversations(c)
	case "cqm.UnsubscribeExConversations":
		return k.unsubscribeConversations(c)
	default:
		return refuse(errUnknownType, "no such request for a consumer")
	}
}
