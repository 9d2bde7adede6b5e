import { invariant } from '#domain/invariant.ts'
import { Kysely, PostgresDialect, type PostgresPool, type PostgresPoolClient } from 'kysely'
import { poolOf } from './database.ts'
import type { Database } from './schema.ts'

/** Whose rows there are. */
export interface Sight {
  readonly organisationId: string
  /** Null: an operator, who sees all projects of the organisation. */
  readonly projectId: string | null
}

export interface Purpose extends Sight {
  /** `read`: whatever changes something is refused, and nobody waits for the end of a transaction that changed nothing. */
  readonly purpose: 'read' | 'change'
}

/**
 * A handle whose statements see the rows of one caller and no others, whatever they ask for: each transaction, and each
 * statement outside of one, begins as the role `purser_tenant` with the caller in its settings (migrations/0032). Both end
 * with the transaction, so that a connection goes back to the pool as it came. What is read by statements that follow at once
 * costs a round trip, a change outside of a transaction two. Not to be destroyed: the pool is somebody else's.
 */
export function asTenant(db: Kysely<Database>, purpose: Purpose): Kysely<Database> {
  const pool = poolOf(db)
  const prelude = preludeOf(purpose)
  const shelf: Shelf = { client: undefined }
  const own: PostgresPool = {
    options: pool.options,
    ...(pool.Client && { Client: pool.Client }),
    async connect() {
      const { client } = shelf
      shelf.client = undefined
      return (
        client ?? confined(await pool.connect(), { prelude, shelf: purpose.purpose === 'read' ? shelf : undefined })
      )
    },
    end: () => Promise.resolve(),
  }
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool: own }) })
}

const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/

/** Sent in the same message as the `begin`: only a text without parameters may be several statements. */
function preludeOf({ organisationId, projectId, purpose }: Purpose): string {
  invariant(UUID.test(organisationId) && (projectId === null || UUID.test(projectId)), 'a tenant is a uuid')
  const settings = {
    role: 'purser_tenant',
    search_path: 'tenant, public',
    'purser.organisation': organisationId,
    'purser.project': projectId ?? '',
    ...(purpose === 'read' && { transaction_read_only: 'on' }),
  }
  const calls = Object.entries(settings).map(([name, value]) => `set_config('${name}', '${value}', true)`)
  return `select ${calls.join(', ')}`
}

const BEGINS = /^(begin|start transaction)\b/
const ENDS = /^(commit|rollback)$/

/**
 * Whose transaction a connection is in: none's, that of the code that asks, or one of statements that it asks alone, the last
 * of which may have failed. Its error is told first: such a transaction is ended when the connection is given back or used again.
 */
type Open = 'none' | 'theirs' | 'own' | 'failed'

/** Where a connection in a transaction of its own waits for the next statement: until whoever asks does something else. */
interface Shelf {
  client: PostgresPoolClient | undefined
}

/** Statements that follow each other without end take turns: far below the transaction's limit. In milliseconds. */
const TURN_MS = 500

/** One connection, from the pool and back. Without a shelf, what is answered is committed. */
function confined(
  client: PostgresPoolClient,
  { prelude, shelf }: { readonly prelude: string; readonly shelf: Shelf | undefined },
): PostgresPoolClient {
  let open: Open = 'none'
  let begunMs = 0
  const send = (text: string, values: readonly unknown[] = []) => client.query(text, values)

  async function begin(text: string, whose: Open) {
    if (open !== 'none') await send(open === 'own' ? 'commit' : 'rollback')
    // One that is not heard of in time may have begun all the same.
    open = 'failed'
    const begun = await send(`${text}; ${prelude}`)
    begunMs = performance.now()
    open = whose
    return begun
  }

  async function alone(text: string, values: readonly unknown[]) {
    if (open !== 'own') await begin('begin', 'own')
    open = 'failed'
    const answer = await send(text, values)
    if (!shelf) await send('commit')
    open = shelf ? 'own' : 'none'
    return answer
  }

  async function query(text: string, values: readonly unknown[]) {
    if (BEGINS.test(text)) return begin(text, 'theirs')
    if (ENDS.test(text)) open = 'none'
    else if (open !== 'theirs') return alone(text, values)
    return send(text, values)
  }

  function giveBack(): void {
    send(open === 'own' ? 'commit' : 'rollback').then(
      () => client.release(),
      () => client.release(true),
    )
  }

  function release(isBroken = false): void {
    if (isBroken || open === 'none') return client.release(isBroken)
    if (!shelf || shelf.client || open !== 'own' || performance.now() - begunMs > TURN_MS) return giveBack()
    shelf.client = self
    setImmediate(() => {
      if (shelf.client !== self) return
      shelf.client = undefined
      giveBack()
    })
  }

  const self = new Proxy(client, {
    get(target, property) {
      if (property === 'query') return query
      if (property === 'release') return release
      const value: unknown = Reflect.get(target, property)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
  return self
}
