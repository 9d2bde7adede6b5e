import pg from 'pg'

/**
 * A pool whose connections may be ended by the server at any moment. One that dies is told by its query, or by the next one:
 * without listeners, idle, in use or already being closed, it would end this process.
 */
export function openPool(config: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool(config)
  pool.on('error', () => {})
  pool.on('connect', (client) => {
    client.on('error', () => {})
  })
  return pool
}
