import {
  closeCircuit,
  distrustRoute,
  freeProbe,
  openCircuit,
  pauseRoute,
  reopenCircuit,
  winProbe,
  type Failure,
} from '#db/route-circuit.ts'
import type { RouteKey, RouteKnowledge, RouteReport } from '#db/route-turn.ts'
import type { Database } from '#db/schema.ts'
import { EMPTY_TALLY, openForMs, pauseForMs, shouldOpen, signOf, tallied, type Tally } from '#domain/circuit.ts'
import type { Outcome } from '#domain/policy.ts'
import type { Kysely } from 'kysely'

/** A probe is out: its end is looked for this soon, in milliseconds. */
const PROBE_LOOK_MS = 1_000
/** A pause that is known almost as long is not written again. */
const PAUSE_SLACK_MS = 250
/** Most characters of a provider's message that are shared. */
const MAX_MESSAGE = 300

const NOTHING_KNOWN: RouteKnowledge = {
  epoch: 0,
  failures: 0,
  openings: 0,
  openMs: null,
  pausedMs: null,
  isProbed: false,
  distrustPpm: 0,
}

/** How an attempt ended. */
export interface AttemptEnd {
  readonly outcome: Outcome | null
  readonly retryAfterMs: number | null
  readonly message: string | null
}

/** A change that every process must know: written at once, and again until it is. */
type Change = (db: Kysely<Database>) => Promise<RouteKnowledge | undefined>

/** What one process knows of a route's circuit, and what it has to tell of it. */
export class RouteCircuit {
  readonly #key: RouteKey
  readonly #by: {
    readonly nowMs: () => number
    readonly random: () => number
    readonly write: (change: Change) => void
  }
  #known = NOTHING_KNOWN
  #knownAtMs = -Infinity
  #openUntilMs = 0
  #pausedUntilMs = 0
  #tally: Tally = EMPTY_TALLY
  /** Not told yet. */
  #report: RouteReport | undefined
  #told: RouteReport | undefined
  /** Of this process, until a later look shows that it is stored. */
  #distrust = { ppm: 0, atMs: 0 }
  #lastFailure: AttemptEnd | undefined
  /** An opening that is being written for this epoch. */
  #openingEpoch = -1

  constructor(
    key: RouteKey,
    by: { readonly nowMs: () => number; readonly random: () => number; readonly write: (change: Change) => void },
  ) {
    this.#key = key
    this.#by = by
  }

  get hasReport(): boolean {
    return this.#report !== undefined
  }

  get distrustPpm(): number {
    return Math.max(this.#known.distrustPpm, this.#distrust.ppm)
  }

  knowledgeAgeMs(): number {
    return this.#by.nowMs() - this.#knownAtMs
  }

  /** In how many milliseconds to ask again; 0: a request may go there, as a probe where the circuit is open. */
  waitMs(): number {
    const nowMs = this.#by.nowMs()
    if (nowMs < this.#pausedUntilMs) return this.#pausedUntilMs - nowMs
    if (this.#known.openMs === null) return 0
    if (nowMs < this.#openUntilMs) return this.#openUntilMs - nowMs
    return this.#known.isProbed ? PROBE_LOOK_MS : 0
  }

  get isOpen(): boolean {
    return this.#known.openMs !== null
  }

  /** Of all processes one wins. Undefined when it was another, or when there is nothing to probe any more. */
  async winProbe(db: Kysely<Database>, probe: { readonly id: string; readonly instanceId: string }): Promise<boolean> {
    const known = await winProbe(db, this.#key, probe)
    if (known) this.learn(known)
    else this.#known = { ...this.#known, isProbed: true }
    return known !== undefined
  }

  /** What a look, or a change of our own, has shown. An older state than the known one is passed over. */
  learn(known: RouteKnowledge, askedAtMs = this.#by.nowMs()): void {
    if (known.epoch < this.#known.epoch) return
    const nowMs = this.#by.nowMs()
    const pausedUntilMs = known.pausedMs === null ? 0 : nowMs + known.pausedMs
    if (known.epoch > this.#known.epoch) {
      this.#tally = EMPTY_TALLY
      this.#report = undefined
      this.#lastFailure = undefined
      this.#pausedUntilMs = pausedUntilMs
    }
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, pausedUntilMs)
    this.#openUntilMs = nowMs + (known.openMs ?? 0)
    if (askedAtMs > this.#distrust.atMs) this.#distrust = { ppm: 0, atMs: 0 }
    this.#known = known
    this.#knownAtMs = askedAtMs
    const report = this.#report
    const failures = report?.answered === true ? report.failures : known.failures + (report?.failures ?? 0)
    this.#tally = { ...this.#tally, failures }
    if (failures > 0 && this.#lastFailure) this.#openIfIll(this.#lastFailure)
  }

  /** An attempt has ended that was no probe. */
  note(end: AttemptEnd): void {
    if (end.outcome === null) return
    const sign = signOf(end.outcome)
    if (sign === 'limited') this.#pause(end.retryAfterMs)
    if (sign === 'silent' || sign === 'limited') return
    this.#tally = tallied(this.#tally, sign)
    if (sign === 'well') {
      this.#lastFailure = undefined
      if (this.#report !== undefined || this.#known.failures > 0) this.#report = ANSWERED
      return
    }
    this.#lastFailure = end
    this.#report = failedOnce(this.#report, failureOf(end, end.outcome))
    this.#openIfIll(end)
  }

  /** The probe has ended: it closes the circuit, opens it for longer, or says nothing. */
  noteProbe(probeId: string, end: AttemptEnd): void {
    const { outcome } = end
    const sign = outcome === null ? 'silent' : signOf(outcome)
    const key = this.#key
    if (outcome !== null && (sign === 'ill' || sign === 'gone')) {
      const openings = this.#known.openings + 1
      const forMs = openForMs({ openings, sign, retryAfterMs: end.retryAfterMs, jitter: this.#by.random() })
      const failure = failureOf(end, outcome)
      this.#by.write((db) => reopenCircuit(db, key, { probeId, forMs, failure }))
      return
    }
    if (sign === 'limited') this.#pause(end.retryAfterMs)
    this.#by.write((db) => (sign === 'well' ? closeCircuit(db, key, probeId) : freeProbe(db, key, probeId)))
  }

  /** The route billed above its hold. */
  distrust(ppm: number): void {
    if (ppm <= this.distrustPpm) return
    this.#distrust = { ppm, atMs: Infinity }
    this.#by.write(async (db) => {
      const known = await distrustRoute(db, this.#key, ppm)
      if (this.#distrust.ppm === ppm) this.#distrust = { ppm, atMs: this.#by.nowMs() }
      return known
    })
  }

  /** What is told in this turn; `untell` when it may not have arrived. */
  tell(): RouteReport | null {
    this.#told = this.#report
    this.#report = undefined
    return this.#told ?? null
  }

  untell(): void {
    const told = this.#told
    this.#told = undefined
    if (!told) return
    const since = this.#report
    this.#report =
      since?.answered === true ? since : { ...told, ...since, failures: told.failures + (since?.failures ?? 0) }
  }

  #pause(retryAfterMs: number | null): void {
    const forMs = pauseForMs(retryAfterMs)
    const untilMs = this.#by.nowMs() + forMs
    if (forMs === 0 || untilMs < this.#pausedUntilMs + PAUSE_SLACK_MS) return
    this.#pausedUntilMs = untilMs
    this.#by.write((db) => pauseRoute(db, this.#key, Math.max(0, untilMs - this.#by.nowMs())))
  }

  #openIfIll(end: AttemptEnd): void {
    const { epoch } = this.#known
    const { outcome, retryAfterMs } = end
    if (this.isOpen || this.#openingEpoch === epoch || outcome === null) return
    const sign = signOf(outcome)
    if (!shouldOpen(this.#tally, sign)) return
    const failure = failureOf(end, outcome)
    const forMs = openForMs({ openings: 1, sign, retryAfterMs, jitter: this.#by.random() })
    const { failures } = this.#tally
    this.#openingEpoch = epoch
    this.#by.write((db) => openCircuit(db, this.#key, { epoch, forMs, failures, failure }))
  }
}

const ANSWERED: RouteReport = Object.freeze({ answered: true, failures: 0, outcome: null, message: null })

function failedOnce(report: RouteReport | undefined, failure: Failure): RouteReport {
  return { answered: report?.answered ?? false, failures: (report?.failures ?? 0) + 1, ...failure }
}

function failureOf(end: AttemptEnd, outcome: Outcome): Failure {
  // Postgres stores no NUL, and half a surrogate pair is no text.
  const message = end.message?.slice(0, MAX_MESSAGE).toWellFormed().replaceAll('\0', '\uFFFD') ?? null
  return { outcome, message }
}
