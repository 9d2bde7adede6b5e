import type { RunEnd } from '#contracts/activities.ts'

/**
 * What a kit call throws when the run has to end. It is no `Error`, so that `catch (error) { if (error instanceof
 * CallFailed) … else throw error }` lets it through. An agent that swallows it gains nothing: every later kit call throws
 * it again, and the run ends the way it says, whatever the agent returns.
 */
export class Stop {
  readonly end: RunEnd

  constructor(end: RunEnd) {
    this.end = end
  }
}

/** A kit call that gave nothing. An agent may catch it and go on; else the run fails. */
class StepFailed extends Error {
  readonly path: string
  /** A word for it, such as `routes_exhausted`. */
  readonly reason: string

  constructor(path: string, reason: string, detail: string) {
    super(`${path}: ${reason}: ${detail}`)
    this.path = path
    this.reason = reason
  }
}

/** A model call that has no answer and will get none; `malformed_object` when the answer is no object of the schema. */
export class CallFailed extends StepFailed {
  override readonly name = 'CallFailed'
}

/** A tool that gave no result. */
export class ToolFailed extends StepFailed {
  override readonly name = 'ToolFailed'
}

/** A child run that was not opened, or ended without a result. */
export class ChildFailed extends StepFailed {
  override readonly name = 'ChildFailed'
}

/** What `kit.rollover` throws: the workflow goes on in a new history. Like `Stop` it is no `Error`. */
export class Rollover {
  readonly state: unknown

  constructor(state: unknown) {
    this.state = state
  }
}
