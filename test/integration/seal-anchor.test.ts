import { anchorHeads, anchorLinesIn } from '#calls/seal-anchor.ts'
import { headsFrom } from '#db/seal.ts'
import { appendFile, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { forge, pay, resealAll, sealAll, wrongChecks } from '../support/seals.ts'
import { createWorld } from '../support/world.ts'

test('an edit whose chain was recomputed passes without the anchor, and is found with it', async () => {
  const world = await createWorld()
  const anchor = join(await useScratchFolder(), 'anchor')
  await sealAll(world)
  await anchorHeads(world.db, anchor)
  await forge(world, (client) => resealAll(world, client))
  expect(await wrongChecks(world)).toEqual({})
  const lines = anchorLinesIn(await readFile(anchor, 'utf8'))
  expect(await wrongChecks(world, { anchor: lines })).toEqual({ anchor: 'block 1: is another one than was anchored' })
  await expect(anchorHeads(world.db, anchor)).rejects.toThrow(/has otherwise/)
})

test('a journal and a chain that were cut off at the end are found with the anchor', async () => {
  const world = await createWorld()
  const anchor = join(await useScratchFolder(), 'anchor')
  await sealAll(world)
  await pay(world, 7n)
  await sealAll(world)
  await anchorHeads(world.db, anchor)
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(`with cut as (delete from seal where height = 2 returning *), gone as (
        delete from transfer t using cut where (t.xid, t.seq) >= (cut.first_xid, cut.first_seq) returning t.*)
      update account a set posted_credit = posted_credit - g.amount, version = version - 1
      from gone g where a.id = g.credit_account and a.kind = 'wallet'`)
  })
  expect(await wrongChecks(world)).toEqual({})
  const lines = anchorLinesIn(await readFile(anchor, 'utf8'))
  expect(await wrongChecks(world, { anchor: lines })).toEqual({
    anchor: 'block 2: is anchored, and the database does not have it',
  })
})

test('a crash between a seal and its line, or within the line, is made up for by the next sealer', async () => {
  const world = await createWorld()
  const anchor = join(await useScratchFolder(), 'anchor')
  await sealAll(world)
  await anchorHeads(world.db, anchor)
  for (let index = 0; index < 2; index += 1) {
    await pay(world)
    await sealAll(world) // and killed before it was anchored
  }
  const [next] = await headsFrom(world.db, { height: 2, limit: 1 })
  await appendFile(anchor, JSON.stringify(next).slice(0, 40)) // and one that was killed while it wrote
  expect(anchorLinesIn(await readFile(anchor, 'utf8'))).toHaveLength(1)
  expect(await anchorHeads(world.db, anchor)).toBe(2)
  expect(await anchorHeads(world.db, anchor)).toBe(0)
  const lines = anchorLinesIn(await readFile(anchor, 'utf8'))
  expect(lines.map(({ height }) => height)).toEqual([1, 2, 3])
  expect(await wrongChecks(world, { anchor: lines })).toEqual({})
  await writeFile(anchor, '')
  await truncate(anchor)
  expect(await anchorHeads(world.db, anchor)).toBe(3)
})

test('an anchor that cannot be read, or has nothing of a chain that is there, vouches for nothing', async () => {
  const world = await createWorld()
  const anchor = join(await useScratchFolder(), 'anchor')
  expect(await wrongChecks(world, { anchor: [] })).toEqual({})
  await sealAll(world)
  await pay(world)
  await sealAll(world)
  await anchorHeads(world.db, anchor)
  expect(await wrongChecks(world, { anchor: [] })).toEqual({
    anchor: 'block 1: is not in the anchor, and neither is any other',
  })
  const text = await readFile(anchor, 'utf8')
  expect(() => anchorLinesIn(text.replace('"hash"', '"trash"'))).toThrow('its line 1 cannot be read')
  expect(() => anchorLinesIn(`some other file\n${text}`)).toThrow('its line 1 cannot be read')
})

test('a line that was taken out of the anchor is missed', async () => {
  const world = await createWorld()
  const anchor = join(await useScratchFolder(), 'anchor')
  for (let index = 0; index < 3; index += 1) {
    await pay(world)
    await sealAll(world)
  }
  await anchorHeads(world.db, anchor)
  const lines = anchorLinesIn(await readFile(anchor, 'utf8')).filter(({ height }) => height !== 2)
  expect(await wrongChecks(world, { anchor: lines })).toEqual({
    anchor: 'block 2: is missing in the anchor, and the next one is there',
  })
})
