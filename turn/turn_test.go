package turn

import (
	"context"
	"errors"
	"slices"
	"sync"
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

// spend makes each turn send what it pays for as soon as it is granted, until all are or the bubble sleeps for good.
func spend(q *Queue, list []*Ticket) {
	for _, t := range list {
		go func() {
			for pause := 50 * time.Millisecond; !t.Granted(); pause = min(2*pause, time.Second) {
				time.Sleep(pause)
			}
			requests := t.cost
			if t.Probe() {
				requests = max(1, requests)
			}
			for range requests {
				q.Sent(With(context.Background(), t))
			}
			t.Done()
		}()
	}
}

func ask(q *Queue, n int, u Urgency, cost int) (list []*Ticket) {
	for range n {
		list = append(list, q.Ask(u, cost, nil))
	}
	return list
}

func TestTurnsComeAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{})
		first := ask(q, 1000, Make, 1)
		if n := granted(first); n != atOnce {
			t.Errorf("%d turns under way at once", n)
		}
		spend(q, first)
		time.Sleep(time.Second - time.Millisecond)
		if n := granted(first); n < 140 || n > 146 {
			t.Errorf("%d turns at once", n)
		}
		time.Sleep(time.Minute)
		if n := granted(first); n < 430 || n > 446 {
			t.Errorf("%d turns after a minute", n)
		}
		// What is more urgent does not wait behind hundreds, and what costs nothing does not wait at all.
		rescue, free := q.Ask(Rescue, 2, nil), q.Ask(Check, 0, nil)
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
		}
		time.Sleep(2 * time.Minute)
		if n := granted(first); n != len(first) {
			t.Errorf("%d of %d were ever granted", n, len(first))
		}
	})
}

func TestWhatIsNotUsedIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{PerMinute: 60})
		used := ask(q, 20, Keep, 1)
		late := q.Ask(Keep, 1, nil)
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
		next := q.Ask(Rescue, 1, nil)
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

// TestWhoGoesFirst has turns of all kinds ask in the wrong order.
func TestWhoGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{PerMinute: 60})
		for range int(q.size) {
			q.Sent(context.Background())
		}
		var order []Urgency
		for u := Check; u <= Save; u++ {
			q.Ask(u, 1, func() { order = append(order, u) }) // one at a time, under the queue's lock
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []Urgency{Save, Many, Rescue, Keep, Finish, Make, Check}
		if !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
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
		spend(q, all)
		began := time.Now()
		for range 40 {
			time.Sleep(ProbePause)
			synctest.Wait()
			q.Failed(trouble)
		}
		if n := granted(all); n != 40 || time.Since(began) != 10*time.Minute {
			t.Errorf("%d probes in %v", n, time.Since(began))
		}
		if n := granted(all[:50]); n != 20 { // a server that extends and does not mint is found out
			t.Errorf("%d of 40 probes were mints", n)
		}
		q.Succeeded()
		time.Sleep(100 * time.Millisecond) // they gather first
		urgent := ask(q, 50, Many, 3)
		spend(q, urgent)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n, others := granted(urgent), granted(all); n < 45 || others != 70 { // those that cost nothing, and the probes
			t.Errorf("right after the end %d turns for many keys were granted of 50, and %d of the others", n, others)
		}
		time.Sleep(saving + 20*time.Second)
		if n := granted(all); n != 100 || granted(urgent) != 50 || len(told) != 2 || told[1] != nil {
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

// TestAProbeThatAsksNothing, since what it was for turned out to need no request, makes room for the next one soon.
func TestAProbeThatAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(Config{Shared: true})
		for range failing {
			q.Failed(errors.New("down"))
		}
		list := ask(q, 3, Keep, 1)
		time.Sleep(ProbePause)
		synctest.Wait()
		for n := range list {
			if got := granted(list); got != n+1 || !list[n].Probe() {
				t.Errorf("%d probes, want %d", got, n+1)
			}
			if n == 1 {
				q.Sent(With(context.Background(), list[n]))
			}
			list[n].Done()
			time.Sleep(emptyPause)
			synctest.Wait()
			if n == 1 {
				if granted(list) != 2 {
					t.Error("after one that asked the next comes 15 s later")
				}
				time.Sleep(ProbePause)
				synctest.Wait()
			}
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
		if ticket := none.Ask(Make, 1, nil); !ticket.Granted() || ticket.Alone() || none.Outage() != nil {
			t.Error("without a queue nobody waits")
		}
	})
}

func TestWorkersAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWorkers(3)
		defer w.Close()
		var mu sync.Mutex
		now, most, done := 0, 0, 0
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				_ = w.Do(t.Context(), func() {
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					now--
					done++
					mu.Unlock()
				})
			})
		}
		all.Wait()
		if most != 3 || done != 20 {
			t.Errorf("%d at once, %d done", most, done)
		}
		for range 3 {
			all.Go(func() { _ = w.Do(t.Context(), func() { time.Sleep(time.Hour) }) })
		}
		time.Sleep(time.Millisecond)
		began := time.Now()
		if err := w.Do(t.Context(), func() {}); err != nil || time.Since(began) > 3*stuck {
			t.Errorf("all workers hang, and others wait for %v (%v)", time.Since(began), err)
		}
		all.Wait()
		ran := false
		if err := (*Workers)(nil).Do(t.Context(), func() { ran = true }); err != nil || !ran {
			t.Error("without workers nothing is done")
		}
		for range 3 {
			all.Go(func() { _ = w.Do(t.Context(), func() { time.Sleep(time.Minute) }) })
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Do(ctx, func() { t.Error("done all the same") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		all.Wait()
	})
}
