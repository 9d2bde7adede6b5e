import type { PostgresPool } from 'kysely'
import pg from 'pg'
import { namingTheClock } from './clock.ts'

const MARK = /^\s*\/\* prepared: (\w+) \*\//

/**
 * A pool whose connections prepare, once each, the statements that begin with a comment such as `prepared: post`: the
 * busiest ones need not be parsed again and again. The name stands for one text only. What any statement raises about the
 * clock becomes the Problem `clock_backwards`, whichever function of the ledger it calls.
 */
export function preparing(pool: pg.Pool): PostgresPool {
  const known = new WeakMap<pg.PoolClient, pg.PoolClient>()
  return {
    options: pool.options,
    Client: pg.Client,
    async connect() {
      const client = await pool.connect()
      const seen = known.get(client)
      if (seen) return seen
      const wrapped = wrap(client)
      known.set(client, wrapped)
      return wrapped
    },
    end: () => pool.end(),
  }
}

function wrap(client: pg.PoolClient): pg.PoolClient {
  return new Proxy(client, {
    get(target, property) {
      if (property === 'query') return (text: string, values: unknown[]) => send(target, text, values)
      const value: unknown = Reflect.get(target, property)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

function send(client: pg.PoolClient, text: string, values: unknown[]) {
  const name = typeof text === 'string' ? MARK.exec(text)?.[1] : undefined
  const sent = name === undefined ? client.query(text, values) : client.query({ name, text, values })
  return sent.catch(namingTheClock)
}
