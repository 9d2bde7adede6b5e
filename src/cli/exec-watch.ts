import { setTimeout as delay } from 'node:timers/promises'
import { isLastEvent, type EventView } from '#contracts/api-event.ts'
import type { RunView } from '#contracts/api-run.ts'
import type { PurserClient } from '#client/purser-client.ts'
import { describeEvent, inWords } from './event-line.ts'
import { isInForeground } from './exec-job.ts'
import type { Screen } from './screen.ts'
import type { StatusLine } from './status-line.ts'

const POLL_MS = 1_000
/** The last look, for what was not told yet; the run is still to be ended. */
const LAST_LOOK_MS = 5_000
/** As many as the API gives at once. */
const EVENTS_PER_PAGE = 200

/** A request of the run was refused: what bound it, and by how much. Amounts of money, tokens or calls. */
export interface Refused {
  readonly limit: string
  readonly needed: string
  readonly remaining: string
  readonly unit: string
}

/** Whether somebody has put more in. */
type AskForMoney = (refused: Refused, signal: AbortSignal) => Promise<boolean>

interface WatchOptions {
  readonly err: Screen
  /** Where its figures are shown; none where there is no terminal. */
  readonly line: StatusLine | undefined
  /** Called each second, but not while somebody is asked. */
  readonly alsoLook: () => void
  /** Asks for more; undefined where nobody can be asked. */
  readonly ask: AskForMoney | undefined
}

/** Looks at a run while its command is at work: shows its figures, and says when its money has ended. */
export class RunWatch {
  readonly #api: PurserClient
  readonly #runId: string
  readonly #options: WatchOptions
  readonly #stopped = new AbortController()
  readonly #calls = new Set<unknown>()
  readonly #looking: Promise<void>
  #lastEventId: string | undefined
  /** The last refusal that nobody was told of: a look may be broken off behind it. */
  #untold: Refused | undefined
  #ask: AskForMoney | undefined
  #hasComplained = false

  constructor(api: PurserClient, run: RunView, options: WatchOptions) {
    this.#api = api
    this.#runId = run.id
    this.#options = options
    this.#ask = options.ask
    options.line?.show(figuresOf(run, 0))
    this.#looking = this.#follow()
  }

  /** The command is over: nobody is asked any more, and a refusal that was not told yet is told. */
  async stop(gaveUp: AbortSignal): Promise<void> {
    this.#ask = undefined
    this.#stopped.abort(new Error('The command is over.'))
    await this.#looking
    await this.#look(AbortSignal.any([gaveUp, AbortSignal.timeout(LAST_LOOK_MS)])).catch(() => {})
    this.#options.line?.close()
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stopped
    while (!signal.aborted) {
      await this.#look(signal).catch(() => {
        if (!signal.aborted) this.#options.line?.show('purser  no answer from the API')
      })
      await delay(POLL_MS, undefined, { signal }).catch(() => {})
      if (!signal.aborted) this.#options.alsoLook()
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    await this.#readEvents(signal)
    const { line } = this.#options
    if (line) {
      const run = await this.#api.get('/runs/{id}', { params: { path: { id: this.#runId } }, signal })
      line.show(figuresOf(run, this.#calls.size))
    }
    const refused = this.#untold
    this.#untold = undefined
    if (refused) await this.#tell(refused, signal)
  }

  async #readEvents(signal: AbortSignal): Promise<void> {
    for (;;) {
      const after = this.#lastEventId
      const { events } = await this.#api.get('/runs/{id}/events', {
        params: { path: { id: this.#runId }, query: { format: 'json', ...(after !== undefined && { after }) } },
        signal,
      })
      for (const event of events) {
        this.#lastEventId = event.id
        if (event.kind === 'attempt.settled') this.#calls.add(event.data['callId'])
        if (event.kind === 'run.exhausted') this.#untold = refusedOf(event)
        this.#tellState(event)
      }
      if (events.length < EVENTS_PER_PAGE) return
    }
  }

  /** What somebody else, or time, did to the run while its command is at work: the command hears of it by refusals only. */
  #tellState(event: EventView): void {
    const { err } = this.#options
    const { text } = describeEvent(event, undefined) ?? {}
    if (isLastEvent(event)) err.line(`purser: The run is over, and requests are refused: ${text}`)
    else if (event.kind === 'run.paused')
      err.line(`purser: The run is ${text} Requests are refused until it is resumed.`)
    else if (event.kind === 'run.running' && event.data['from'] === 'paused') err.line('purser: The run goes on.')
  }

  async #tell(refused: Refused, signal: AbortSignal): Promise<void> {
    const { err, line } = this.#options
    // In the background it would be stopped for asking.
    if (this.#ask && isInForeground()) {
      line?.hide()
      if (!(await this.#ask(refused, signal))) this.#ask = undefined
      return
    }
    if (this.#hasComplained) return
    this.#hasComplained = true
    err.line(
      `purser: ${inOneSentence(refused)} Requests are refused until: purser top-up ${this.#runId} --direct AMOUNT`,
    )
  }
}

export function inOneSentence({ limit, needed, remaining, unit }: Refused): string {
  return `The ${limit} is used up: a request needs ${needed} ${unit}, ${remaining} ${unit} are free.`
}

function refusedOf({ data }: EventView): Refused {
  const text = (name: string): string => (typeof data[name] === 'string' ? data[name] : '?')
  return { limit: inWords(text('limit')), needed: text('needed'), remaining: text('remaining'), unit: text('unit') }
}

function figuresOf({ envelope }: RunView, calls: number): string {
  const pockets = envelope.pockets.map(({ balanceClass, currency, spent, held, free }) => {
    const name = envelope.pockets.length > 1 ? `${balanceClass} ` : ''
    return `${name}spent ${spent.amount} · held ${held.amount} · left ${free.amount} ${currency}`
  })
  return `purser  ${pockets.join('  |  ')} · ${calls} ${calls === 1 ? 'call' : 'calls'}`
}
