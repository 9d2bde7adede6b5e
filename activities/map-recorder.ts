import type { RowOutcome } from '#db/row-map.ts'

/** Outcomes of one insert. After a crash the others are found with their calls: nothing of them is asked again. */
const ROWS_AT_ONCE = 50

/** Writes down what became of rows, some at a time, beside the rows that are still on their way. */
export interface RowRecorder {
  add(outcome: RowOutcome): void
  /** Throws what any of the writes threw. */
  flush(): Promise<void>
}

export function createRowRecorder(write: (outcomes: readonly RowOutcome[]) => Promise<void>): RowRecorder {
  let pending: RowOutcome[] = []
  let writing = Promise.resolve()

  function begin(): Promise<void> {
    const page = pending
    pending = []
    writing = writing.then(() => write(page))
    writing.catch(() => {})
    return writing
  }

  return {
    add(outcome) {
      pending.push(outcome)
      if (pending.length >= ROWS_AT_ONCE) void begin()
    },
    flush: begin,
  }
}
