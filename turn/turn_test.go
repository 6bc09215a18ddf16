package turn

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func granted(list []*Ticket) (n int) {
	for _, t := range list {
		if t.Granted() {
			n++
		}
	}
	return n
}

func ask(q *Queue, n int, u Urgency, cost int) (list []*Ticket) {
	for range n {
		list = append(list, q.Ask(u, cost))
	}
	return list
}

func TestTurnsComeAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{})
		first := ask(q, 1000, Make, 1)
		if n := granted(first); n != 140 {
			t.Errorf("%d turns at once", n)
		}
		time.Sleep(time.Minute)
		if n := granted(first); n < 439 || n > 441 {
			t.Errorf("%d turns after a minute", n)
		}
		// What is more urgent does not wait behind hundreds, and what costs nothing does not wait at all.
		rescue, free := q.Ask(Rescue, 2), q.Ask(Check, 0)
		if rescue.Granted() || !free.Granted() {
			t.Errorf("granted at once: urgent %v, free %v", rescue.Granted(), free.Granted())
		}
		time.Sleep(500 * time.Millisecond)
		if !rescue.Granted() {
			t.Error("an urgent turn waits behind others")
		}
		for i, ticket := range first {
			if !ticket.Granted() && i+1 < len(first) && first[i+1].Granted() {
				t.Fatal("not in order")
			}
			ticket.Done()
		}
	})
}

func TestWhatIsNotUsedIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{PerMinute: 60})
		used := ask(q, 20, Keep, 1)
		late := q.Ask(Keep, 1)
		if granted(used) != 20 || late.Granted() {
			t.Fatalf("%d granted, and one more %v", granted(used), late.Granted())
		}
		ctx := With(context.Background(), used[0])
		q.Sent(ctx)
		used[0].Done() // it was used
		if late.Granted() {
			t.Error("what was used is granted again")
		}
		used[1].Done()
		if !late.Granted() {
			t.Error("what was not used is lost")
		}
		q.Sent(ctx) // used up: a debt of all
		q.Sent(context.Background())
		next := q.Ask(Rescue, 1)
		time.Sleep(2900 * time.Millisecond)
		if next.Granted() {
			t.Error("debts are forgotten")
		}
		time.Sleep(200 * time.Millisecond)
		if !next.Granted() {
			t.Error("debts are paid twice")
		}
		next.Done()
		for _, ticket := range append(used, late) {
			ticket.Done()
		}
	})
}

func TestAnOutageIsProbedForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []error
		q := New(Config{Shared: true, Outage: func(err error, _ time.Duration) { told = append(told, err) }})
		trouble := errors.New("503")
		q.Failed(trouble)
		q.Failed(trouble)
		q.Succeeded()
		q.Failed(trouble)
		q.Failed(trouble)
		if q.Outage() != nil {
			t.Fatal("two failures in a row are an outage")
		}
		q.Failed(trouble)
		if q.Outage() == nil || len(told) != 1 {
			t.Fatalf("no outage: told %v", told)
		}
		all := append(ask(q, 50, Make, 1), ask(q, 50, Keep, 0)...)
		began := time.Now()
		for range 40 {
			time.Sleep(ProbePause)
			q.Failed(trouble)
		}
		if n := granted(all); n != 40 || time.Since(began) != 10*time.Minute {
			t.Errorf("%d probes in %v", n, time.Since(began))
		}
		if n := granted(all[:50]); n != 20 { // a server that extends and does not mint is found out
			t.Errorf("%d of 40 probes were mints", n)
		}
		q.Succeeded()
		if n := granted(all); n != 100 || len(told) != 2 || told[1] != nil {
			t.Errorf("%d granted after the end, told %v", n, told)
		}
		lone := New(Config{})
		for range 5 {
			lone.Failed(trouble)
		}
		if lone.Outage() != nil {
			t.Error("a single key has its own pauses")
		}
	})
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{PerMinute: 6})
		ask(q, 3, Keep, 1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := q.Wait(ctx, Keep, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if ticket, err := q.Wait(t.Context(), Keep, 1); err != nil || !ticket.Alone() {
			t.Errorf("got %v", err)
		}
		if n := q.waiting[Keep].Len(); n != 0 {
			t.Errorf("%d are left waiting", n)
		}
		var none *Queue
		if ticket := none.Ask(Make, 1); !ticket.Granted() || ticket.Ready() != nil || ticket.Alone() || none.Outage() != nil {
			t.Error("without a queue nobody waits")
		}
	})
}
