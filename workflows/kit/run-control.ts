import type { OnExhausted } from '#contracts/names.ts'
import type { ClosingRequest, MoneyStop, RunEnd, RunStanding } from '#contracts/activities.ts'
import { CancellationScope, condition, isCancellation, rootCause } from '@temporalio/workflow'
import { Stop } from './stop.ts'
import * as ports from './ports.ts'

/** A detail is a sentence; a stack of causes is not. */
const MAX_DETAIL_LENGTH = 500

/** What `beginRun` said about money. */
export interface MoneyRules {
  readonly onExhausted: OnExhausted
  readonly pauseDeadlineMs: number
}

/**
 * Where a run stands, and everything that changes it: wake signals, pauses, the end. The run's row is the truth. A wake
 * says only "look", so each one leads to a look at the row, and a look that something overtook is repeated.
 */
export class RunControl {
  readonly #runId: string
  /** Calls and tools run in here: cancelled when the run has to end now. */
  readonly #calls = new CancellationScope({ cancellable: true })
  readonly #inFlight = new Set<Promise<unknown>>()
  #rules: MoneyRules | undefined
  #standing: RunStanding = 'running'
  /** Rises with everything that may change the standing; a look is good only if it did not rise meanwhile. */
  #version = 0
  #looking: Promise<void> | undefined
  #waiting: Promise<void> | undefined
  #closing: Promise<unknown> | undefined
  #stop: Stop | undefined
  /** The latest deliverable: what a run that is stopped delivers. */
  draft: unknown

  constructor(runId: string) {
    this.#runId = runId
  }

  /** From here on wakes are followed; those that came before are made up for. */
  begin(rules: MoneyRules): void {
    this.#rules = rules
    if (this.#version > 0) this.#watch()
  }

  wake(): void {
    this.#version += 1
    if (this.#rules && !this.#stop) this.#watch()
  }

  throwIfStopped(): void {
    if (this.#stop) throw this.#stop
  }

  /** Decides how the run ends, unless that is decided already. Nothing of the kit begins after it. */
  end(end: RunEnd): Stop {
    this.#stop ??= new Stop(end)
    return this.#stop
  }

  /** Ends the run now: also aborts what is in flight. */
  cancel(detail: string): Stop {
    const stop = this.end({ state: 'cancelled', reason: 'cancelled', detail })
    this.#calls.cancel()
    return stop
  }

  /** Ends the run now, and tells the row so: the order did not come from there. */
  abort(detail: string): void {
    this.cancel(detail)
    void this.#track(this.close())
  }

  /** Lets no request begin from here on, whoever asks for one, and aborts what is in flight. */
  async close(): Promise<void> {
    const end = this.#stop?.end
    if (!end) return
    const { reason, detail, stop } = end
    this.#closing ??= this.#close({ reason, detail, ...(stop && { stop }), from: 'any' })
    await this.#closing
  }

  /** Does one kit call of the agent: not when the run is to end, and remembered while it is in flight. */
  guard<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#track(this.#guarded(work))
  }

  get isBusy(): boolean {
    return this.#inFlight.size > 0
  }

  /** Waits until nothing is in flight. */
  async settled(): Promise<void> {
    while (this.#inFlight.size > 0) await Promise.allSettled(this.#inFlight)
  }

  /**
   * Money refused a call: pauses or ends the run, as its owner chose. Returns when the call may ask again. A run that
   * ends begins nothing more, but what is in flight is paid for already: it may finish, and its answer be delivered.
   */
  exhausted(stop: MoneyStop): Promise<void> {
    if (this.#rules?.onExhausted === 'pause') return this.#wait(() => this.#pause(stop))
    throw this.end({ state: 'cancelled', reason: 'money_exhausted', detail: inWords(stop), stop })
  }

  /** The envelope is frozen: returns when the run is running again. */
  frozen(): Promise<void> {
    return this.#wait(() => this.#look())
  }

  /** All who wait, wait together: one pause, one deadline, one look for each wake. */
  #wait(learn: () => Promise<void>): Promise<void> {
    this.#waiting ??= learn()
      .then(() => this.#untilRunning())
      .finally(() => {
        this.#waiting = undefined
      })
    return this.#waiting
  }

  async #pause(stop: MoneyStop): Promise<void> {
    const before = this.#version
    const standing = await ports.pauseForMoney({ runId: this.#runId, stop })
    const isCurrent = this.#version === before
    this.#version += 1
    if (isCurrent) this.#apply(standing)
    else await this.#look()
  }

  async #untilRunning(): Promise<void> {
    this.throwIfStopped()
    if (this.#standing !== 'paused') return
    const limitMs = this.#rules?.pauseDeadlineMs ?? 0
    const isOver = await condition(() => this.#standing !== 'paused' || this.#stop !== undefined, limitMs)
    this.throwIfStopped()
    if (isOver) return
    const detail = 'The run was paused and nobody resumed it before its deadline.'
    const standing = await this.#close({ reason: 'pause_expired', detail, from: 'paused' })
    if (standing !== 'running') throw this.end({ state: 'partial', reason: 'pause_expired', detail })
    this.#version += 1
    this.#apply(standing)
  }

  #close(request: Omit<ClosingRequest, 'runId'>): Promise<RunStanding> {
    return CancellationScope.nonCancellable(() => ports.beginClosing({ runId: this.#runId, ...request }))
  }

  #look(): Promise<void> {
    this.#looking ??= CancellationScope.nonCancellable(() => this.#lookUntilCurrent()).finally(() => {
      this.#looking = undefined
    })
    return this.#looking
  }

  /** Looks on behalf of nobody in particular: a look that fails for good fails the run. */
  #watch(): void {
    const failed = (error: unknown): void => {
      this.end({ state: 'failed', reason: 'internal', detail: messageOf(error) })
    }
    void this.#track(this.#look().catch(failed))
  }

  async #lookUntilCurrent(): Promise<void> {
    for (;;) {
      const before = this.#version
      const standing = await ports.standing({ runId: this.#runId })
      if (this.#version !== before) continue
      this.#apply(standing)
      return
    }
  }

  #apply(standing: RunStanding): void {
    this.#standing = standing
    if (standing === 'closing' || standing === 'finished') this.cancel('The run was told to stop.')
  }

  async #guarded<Result>(work: () => Promise<Result>): Promise<Result> {
    this.throwIfStopped()
    try {
      return await this.#calls.run(work)
    } catch (error) {
      if (isCancellation(error)) this.throwIfStopped()
      throw error
    }
  }

  /** What is in flight is waited for at the end, and a failure that nobody awaits does not fail the workflow task. */
  #track<Result>(promise: Promise<Result>): Promise<Result> {
    this.#inFlight.add(promise)
    const forget = (): void => void this.#inFlight.delete(promise)
    promise.then(forget, forget)
    return promise
  }
}

export function messageOf(error: unknown): string {
  const text = error instanceof Error ? (rootCause(error) ?? error.message) : String(error)
  return text.slice(0, MAX_DETAIL_LENGTH)
}

function inWords(stop: MoneyStop): string {
  return `${stop.limit}: the call needs ${stop.needed} ${stop.currency}, ${stop.free} ${stop.currency} are free.`
}
