import { apiKeyOf, lockedProviders, providerVersions, type LockedProvider } from '#db/provider.ts'
import type { Database } from '#db/schema.ts'
import type { SecretBox, SecretKeys } from '#db/secret-box.ts'
import type { Connections } from '#providers/connections.ts'
import { createProvider } from '#providers/create-provider.ts'
import type { Provider } from '#providers/provider.ts'
import type { Kysely } from 'kysely'

/** How often a process looks for what operators have changed. */
const LOOK_MS = 1_000

/** What of a process's providers is stored: without it there are only those of its environment. */
export interface StoredProviders {
  /** Reads their keys. */
  readonly secrets: SecretKeys | undefined
  /** Told once of each provider that cannot be used, and why. */
  readonly complain: (sentence: string) => void
  /** Left out: each is asked straight. */
  readonly connections?: Connections
}

/** The providers that this process can ask, by name. */
export interface ProviderDesk {
  get(name: string): Provider | undefined
  values(): Iterable<Provider>
  /** Looks for changes now. Never fails: while the database is away, what was known stays. */
  look(): Promise<void>
  stop(): Promise<void>
}

/**
 * Providers of the environment, which never change, and stored ones, which are looked for each second. A call that is on
 * keeps the provider that it was sent with. What is stored under the name of one in the environment is passed over.
 */
export async function startProviderDesk(options: {
  readonly db: Kysely<Database>
  readonly fixed: readonly Provider[]
  readonly stored: StoredProviders | undefined
  readonly nowMs: () => number
}): Promise<ProviderDesk> {
  const desk = new Desk(options)
  await desk.look()
  desk.start()
  return desk
}

interface Kept {
  readonly version: bigint
  /** The keys that it was read with. */
  readonly box: SecretBox | undefined
  /** Undefined: it cannot be used, which was said; with other keys it may. */
  readonly provider: Provider | undefined
}

class Desk implements ProviderDesk {
  readonly #db: Kysely<Database>
  readonly #fixed: ReadonlyMap<string, Provider>
  readonly #stored: StoredProviders | undefined
  readonly #nowMs: () => number
  readonly #kept = new Map<string, Kept>()
  #looking: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(options: {
    readonly db: Kysely<Database>
    readonly fixed: readonly Provider[]
    readonly stored: StoredProviders | undefined
    readonly nowMs: () => number
  }) {
    this.#db = options.db
    this.#fixed = new Map(options.fixed.map((provider) => [provider.name, provider]))
    this.#stored = options.stored
    this.#nowMs = options.nowMs
  }

  start(): void {
    if (!this.#stored) return
    this.#timer = setInterval(() => {
      if (!this.#looking) void this.look()
    }, LOOK_MS)
    this.#timer.unref()
  }

  get(name: string): Provider | undefined {
    return this.#fixed.get(name) ?? this.#kept.get(name)?.provider
  }

  values(): Iterable<Provider> {
    const stored = [...this.#kept.values()].flatMap(({ provider }) => provider ?? [])
    return [...this.#fixed.values(), ...stored]
  }

  /** A look that is on may have begun before what its caller knows of. */
  async look(): Promise<void> {
    await this.#looking
    this.#looking ??= this.#lookOnce()
      .catch(() => {})
      .finally(() => {
        this.#looking = undefined
      })
    await this.#looking
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#looking
  }

  async #lookOnce(): Promise<void> {
    const stored = this.#stored
    if (!stored) return
    const versions = await providerVersions(this.#db)
    for (const name of this.#kept.keys()) if (!versions.has(name)) this.#kept.delete(name)
    const box = stored.secrets?.now()
    const changed = [...versions].filter(([name, version]) => {
      const kept = this.#kept.get(name)
      return kept?.version !== version || (!kept.provider && kept.box !== box)
    })
    if (changed.length === 0) return
    const locked = await lockedProviders(
      this.#db,
      changed.map(([name]) => name),
    )
    for (const each of locked) {
      const { version, settings } = each
      this.#kept.set(settings.name, { version, box, provider: this.#usable(each, box, stored) })
    }
  }

  #usable(
    locked: LockedProvider,
    box: SecretBox | undefined,
    { complain, connections }: StoredProviders,
  ): Provider | undefined {
    const { settings } = locked
    const { name } = settings
    if (this.#fixed.has(name)) {
      complain(`The stored provider ${name} is not used: PURSER_PROVIDERS has one of that name.`)
      return undefined
    }
    if (!box) {
      complain(`The provider ${name} is not used: its key is encrypted, and PURSER_SECRETS_KEY_FILE is not set.`)
      return undefined
    }
    try {
      const apiKey = apiKeyOf(box, locked)
      return createProvider({ ...settings, apiKey }, { nowMs: this.#nowMs, connections })
    } catch (error) {
      complain(`The provider ${name} is not used: ${error instanceof Error ? error.message : String(error)}.`)
      return undefined
    }
  }
}
