import { setTimeout as delay } from 'node:timers/promises'
import type { ExitStatus } from '#local/child-process.ts'

/** A process as it runs now. */
export interface Life {
  readonly pid: number | undefined
  readonly exited: Promise<ExitStatus>
  /** SIGKILL. */
  kill(): unknown
  stop(): Promise<unknown>
}

/** It died between these two moments, in milliseconds of the clock that Postgres has as well. */
export interface Kill {
  readonly part: string
  readonly pid: number | undefined
  readonly fromMs: number
  readonly toMs: number
}

export interface PartOptions {
  readonly name: string
  /** Starts it where its clients look for it, with what it had stored. */
  readonly begin: () => Promise<Life>
  readonly say: (what: string) => void
}

/** What a supervisor waits before it starts something again that could not start. */
const AGAIN_MS = 500
/** Something that cannot be started for so long will not be, whatever else is down. */
const BEGIN_DEADLINE_MS = 240_000

/** A process of the topology with its supervisor: however it ends, it is started again, until it is stopped here. */
export class Part {
  readonly name: string
  readonly #begin: PartOptions['begin']
  readonly #say: PartOptions['say']
  #life: Life | undefined
  #up: Promise<void> = Promise.resolve()
  #isWanted = false
  #isKilled = false
  /** Ends that nobody here has caused, each as a phrase. */
  readonly unexpectedEnds: string[] = []
  /** Why it could not be started again, ever; undefined while all is well. */
  failure: unknown

  constructor({ name, begin, say }: PartOptions) {
    this.name = name
    this.#begin = begin
    this.#say = say
  }

  get isUp(): boolean {
    return this.#life !== undefined
  }

  /** Starts it for the first time. */
  async start(): Promise<void> {
    this.#isWanted = true
    this.#live(await this.#begin())
  }

  /** Kills it; answers when it is dead, while its supervisor starts it again. Undefined when it was down anyhow. */
  async kill(): Promise<Kill | undefined> {
    const life = this.#life
    if (!life) return undefined
    this.#isKilled = true
    const fromMs = Date.now()
    await life.kill()
    await life.exited
    return { part: this.name, pid: life.pid, fromMs, toMs: Date.now() }
  }

  /** Until it runs. @throws when it cannot be started again */
  async up(): Promise<void> {
    while (!this.isUp) {
      await this.#up
      if (this.failure !== undefined) throw this.failure
      if (!this.isUp) await delay(AGAIN_MS)
    }
  }

  async stop(): Promise<void> {
    this.#isWanted = false
    await this.#up
    await this.#life?.stop()
  }

  /** A supervisor's loop: whatever it needs may be down as well. */
  async #raise(): Promise<void> {
    const deadline = performance.now() + BEGIN_DEADLINE_MS
    for (;;) {
      try {
        return this.#live(await this.#begin())
      } catch (error) {
        if (!this.#isWanted || performance.now() > deadline) throw error
        await delay(AGAIN_MS)
      }
    }
  }

  #live(life: Life): void {
    this.#isKilled = false
    this.#life = life
    void life.exited.then((status) => this.#ended(life, status))
  }

  #ended(life: Life, { code, signal }: ExitStatus): void {
    if (this.#life === life) this.#life = undefined
    if (!this.#isWanted) return
    if (!this.#isKilled) {
      this.unexpectedEnds.push(`${this.name} (${signal ?? `code ${code}`})`)
      this.#say(`${this.name} ended by itself (${signal ?? `code ${code}`})`)
    }
    this.#up = this.#raise().catch((error: unknown) => {
      this.failure = error
    })
  }
}
