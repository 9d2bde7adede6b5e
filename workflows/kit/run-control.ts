import type { BegunRun, MoneyStop, RunEnd, RunStanding } from '#contracts/activities.ts'
import { CancellationScope, condition, isCancellation, patched, sleep } from '@temporalio/workflow'
import { showState } from './details.ts'
import { InFlight } from './in-flight.ts'
import * as ports from './ports.ts'
import { startTimer } from './rest.ts'
import { Stop } from './stop.ts'
import { inWords, messageOf } from './words.ts'

/** What `beginRun` said about how the run spends, waits and ends. */
export type RunRules = Omit<BegunRun, 'input' | 'model'>

/** `wrap_up`: the run was told to stop, and delivers from its reserve. */
type Phase = 'work' | 'wrap_up'

/** A child's workflow, as its parent sees it. */
interface ChildHandle {
  wake(): Promise<void>
}

/**
 * Where a run stands, and everything that changes it: wake signals, pauses, the end. The run's row is the truth. A wake
 * says only "look", so each one leads to a look at the row, and a look that something overtook is repeated.
 */
export class RunControl {
  readonly #runId: string
  readonly #phase: Phase
  /** Calls and tools run in here: cancelled when the run has to end now. */
  readonly #calls = new CancellationScope({ cancellable: true })
  /** Child runs run in here: they end with the work, also when calls may finish. */
  readonly #children = new CancellationScope({ cancellable: true })
  readonly #handles = new Set<ChildHandle>()
  #rules: RunRules | undefined
  #downgraded = false
  #standing: RunStanding = 'running'
  /** Rises with everything that may change the standing; a look is good only if it did not rise meanwhile. */
  #version = 0
  #looking: Promise<void> | undefined
  #waiting: Promise<void> | undefined
  #closing: Promise<RunStanding> | undefined
  #stop: Stop | undefined
  readonly inFlight = new InFlight()
  /** The latest deliverable: what a run that is stopped delivers. */
  draft: unknown

  constructor(runId: string, phase: Phase = 'work') {
    this.#runId = runId
    this.#phase = phase
  }

  /** From here on wakes are followed; those that came before are made up for. */
  begin(rules: RunRules): void {
    this.#rules = rules
    this.#downgraded = rules.downgraded ?? false
    if (this.#phase === 'work') showState('running')
    if (this.#phase === 'work' && rules.deadlineInMs !== undefined) void this.#expireIn(rules.deadlineInMs)
    if (this.#version > 0 || rules.isFrozen === true) this.#watch()
  }

  get runId(): string {
    return this.#runId
  }

  get rules(): RunRules | undefined {
    return this.#rules
  }

  /** Whether its calls use what its owner chose for after its money. */
  get downgraded(): boolean {
    return this.#downgraded
  }

  wake(): void {
    this.#version += 1
    for (const child of this.#handles) void this.inFlight.track(child.wake())
    if (this.#rules && !this.#stop) this.#watch()
  }

  get isStopped(): boolean {
    return this.#stop !== undefined
  }

  throwIfStopped(): void {
    if (this.#stop) throw this.#stop
  }

  /** Decides how the run ends, unless that is decided already. Nothing of the kit begins after it. */
  end(end: RunEnd): Stop {
    this.#stop ??= new Stop(end)
    this.#children.cancel()
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
    void this.inFlight.track(this.close())
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
    return this.inFlight.track(this.#guarded(this.#calls, work))
  }

  /** The same for what is a run of its own: it is told of wakes, and does not outlive the work. */
  guardChild<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.inFlight.track(this.#guarded(this.#children, work))
  }

  /** From here on the child hears what the run hears. The returned function ends that. */
  adopt(child: ChildHandle): () => void {
    this.#handles.add(child)
    return () => this.#handles.delete(child)
  }

  /**
   * Money refused a call: downgrades, pauses or ends the run, as its owner chose. Returns when the call may ask again. A
   * run that ends begins nothing more, but what is in flight is paid for already: it may finish, and its answer be delivered.
   */
  exhausted(stop: MoneyStop, { wasDowngraded }: { readonly wasDowngraded: boolean }): Promise<void> {
    // It was refused before others had the run downgraded: what that is for it has not tried yet.
    if (this.#downgraded && !wasDowngraded && patched('refused-before-the-downgrade')) return Promise.resolve()
    const choice = this.#choice()
    if (choice === 'downgrade') return this.#wait(() => this.#downgrade(stop))
    if (choice === 'pause') return this.#wait(() => this.#pause(stop))
    throw this.end({ state: 'cancelled', reason: 'money_exhausted', detail: inWords(stop), stop })
  }

  /** The envelope is frozen, or the run may have been told to stop: returns when it is running, or throws. */
  frozen(): Promise<void> {
    return this.#wait(() => this.#look())
  }

  /**
   * Asks `question` until it has an answer, once now and once after each wake. Undefined when `limitMs` is over before.
   */
  async untilTold<Answer>(ask: () => Promise<Answer | undefined>, limitMs: number): Promise<Answer | undefined> {
    const timer = startTimer(limitMs)
    try {
      for (;;) {
        const seen = this.#version
        const answer = await ask()
        this.throwIfStopped()
        if (answer !== undefined) return answer
        await condition(() => this.#version !== seen || this.#stop !== undefined || timer.isOver)
        this.throwIfStopped()
        if (timer.isOver) return undefined
      }
    } finally {
      timer.cancel()
    }
  }

  /** Nobody came before the deadline of a pause: the run ends, unless it is going on after all. */
  async expirePause(detail: string): Promise<void> {
    const isWrappedUp = this.#rules?.hasWrapUp === true
    const standing = await this.#close({ reason: 'pause_expired', detail, from: 'paused', wrapUp: isWrappedUp })
    this.#version += 1
    if (standing === 'running' || standing === 'paused') return this.#apply(standing)
    throw this.end({ state: 'partial', reason: 'pause_expired', detail })
  }

  #choice(): 'pause' | 'downgrade' | 'cancel' {
    if (this.#phase === 'wrap_up' || !this.#rules) return 'cancel'
    const { onExhausted, afterDowngrade = 'cancel' } = this.#rules
    if (onExhausted === 'refuse') return 'cancel'
    return onExhausted === 'downgrade' && this.#downgraded ? afterDowngrade : onExhausted
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
    await this.#follow(this.#version, await ports.pauseForMoney({ runId: this.#runId, stop }))
  }

  async #downgrade(stop: MoneyStop): Promise<void> {
    const before = this.#version
    const standing = await ports.downgradeRun({ runId: this.#runId, stop })
    this.#downgraded = true
    const isOvertaken = this.#version !== before && patched('downgrade-overtaken')
    await this.#follow(isOvertaken ? before : this.#version, standing)
  }

  /** Takes in a standing that was asked for at version `before`, or looks, because something overtook it. */
  async #follow(before: number, standing: RunStanding): Promise<void> {
    const isCurrent = this.#version === before
    this.#version += 1
    if (isCurrent) this.#apply(standing)
    else await this.#look()
  }

  async #untilRunning(): Promise<void> {
    for (;;) {
      this.throwIfStopped()
      if (this.#standing !== 'paused') return
      const limitMs = this.#rules?.pauseDeadlineMs ?? 0
      const isOver = await condition(() => this.#standing !== 'paused' || this.#stop !== undefined, limitMs)
      this.throwIfStopped()
      if (isOver) return
      await this.expirePause('The run was paused and nobody resumed it before its deadline.')
    }
  }

  /** A pause has its deadline also where no call of the run itself waits, such as when all its work is in its children. */
  #expireUnlessResumed(): void {
    if (this.#waiting || this.#stop || !this.#rules || !patched('pause-expires-without-a-call')) return
    this.#watch(() => this.#wait(() => Promise.resolve()))
  }

  /** Its time is over: nothing begins any more, and what is in flight is aborted. */
  async #expireIn(deadlineMs: number): Promise<void> {
    await sleep(deadlineMs)
    if (this.#stop) return
    this.end({ state: 'partial', reason: 'deadline', detail: 'The time of the run was over.' })
    this.#calls.cancel()
    if (this.#rules?.hasWrapUp !== true) void this.inFlight.track(this.close())
  }

  #close(request: Omit<Parameters<typeof ports.beginClosing>[0], 'runId'>): Promise<RunStanding> {
    return CancellationScope.nonCancellable(() => ports.beginClosing({ runId: this.#runId, ...request }))
  }

  #look(): Promise<void> {
    this.#looking ??= CancellationScope.nonCancellable(() => this.#lookUntilCurrent()).finally(() => {
      this.#looking = undefined
    })
    return this.#looking
  }

  /** Looks, or waits, on behalf of nobody in particular: what fails for good fails the run, unless it is ending already. */
  #watch(work = () => this.#look()): void {
    const failed = (error: unknown): void => {
      this.end({ state: 'failed', reason: 'internal', detail: messageOf(error) })
    }
    void this.inFlight.track(work().catch(failed))
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
    const isNew = this.#standing !== standing
    this.#standing = standing
    if (isNew && standing !== 'finished') showState(standing)
    if (standing === 'closing' || standing === 'finished') this.cancel('The run was told to stop.')
    if (standing === 'wrapping_up' && this.#phase === 'work') {
      this.end({ state: 'cancelled', reason: 'cancelled', detail: 'The run was told to stop and to deliver.' })
    }
    if (standing === 'paused') this.#expireUnlessResumed()
    // Children that were frozen with the run look at their own rows.
    if (isNew) for (const child of this.#handles) void this.inFlight.track(child.wake())
  }

  async #guarded<Result>(scope: CancellationScope, work: () => Promise<Result>): Promise<Result> {
    this.throwIfStopped()
    try {
      return await scope.run(work)
    } catch (error) {
      if (isCancellation(error)) this.throwIfStopped()
      throw error
    }
  }
}
