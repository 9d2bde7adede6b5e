import pg from 'pg'
import type { World } from './world.ts'

/** Does something as the superuser: what nobody else may. */
export async function asAdmin(
  world: Pick<World, 'database'>,
  work: (client: pg.Client) => Promise<unknown>,
): Promise<void> {
  const client = new pg.Client(world.database.adminUrl)
  await client.connect()
  try {
    await work(client)
  } finally {
    await client.end()
  }
}
