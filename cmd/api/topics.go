package main

import "context"

// provided are topics that are made when the program starts, for those outside who look for them before the first message.
type provided struct {
	broker topicMaker
	topics []string
}

// topicMaker is a broker that others read too.
type topicMaker interface {
	Provide(ctx context.Context, topic string) error
}

// provide has topics made that others read. Within the process there is nothing to make.
func (a *app) provide(broker pubSub, topics ...string) {
	if maker, ok := broker.(topicMaker); ok {
		a.provided = append(a.provided, provided{broker: maker, topics: topics})
	}
}

// makeTopics makes topics as soon as their broker is there. They have the settings of those who publish to them.
func (a *app) makeTopics(ctx context.Context, p provided) {
	for _, topic := range p.topics {
		for err := p.broker.Provide(ctx, topic); err != nil; err = p.broker.Provide(ctx, topic) {
			if !a.sleep(ctx, "making a topic", topic, err) {
				return
			}
		}
	}
}
