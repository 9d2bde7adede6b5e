import { startSealer } from '#calls/sealer.ts'
import { trustedHead } from '#db/seal-head.ts'
import { sealPublicKeys, sealSigner } from '#db/seal-key.ts'
import { sealOnce } from '#db/seal.ts'
import { verifyLedger } from '#db/verify.ts'
import { createPublicKey } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { forge, heights, newKey, pay, resealAll, sealAll, unsealed, wrongChecks } from '../support/seals.ts'
import { createWorld } from '../support/world.ts'

test('a chain that was recomputed without the key is not sealed on, and the block that stands there is wrong', async () => {
  const world = await createWorld()
  const { pem, signer } = newKey()
  await sealAll(world, signer)
  await pay(world)
  await sealAll(world, signer)
  const [mark, publicKeys] = [await trustedHead(world.db, { mark: undefined, signer }), sealPublicKeys(pem)]
  await forge(world, (client) => resealAll(world, client))
  await pay(world)
  await expect(sealOnce(world.db, signer, mark)).rejects.toThrow(/which was sealed, is one that the database/)
  await sealAll(world, signer)
  const { checks } = await verifyLedger(world.db, { publicKeys })
  expect(checks.find(({ name }) => name === 'signatures')?.note).toMatch(
    /the blocks up to \d+ were sealed without a key/,
  )
  await pay(world)
  await sealAll(world, signer)
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query('update seal set key_id = null, signature = null where height = 3')
  })
  expect(Object.keys(await wrongChecks(world, { publicKeys }))).toEqual(['signatures'])
})

test('a sealer without the key, or with another, does not build on blocks that are signed', async () => {
  const world = await createWorld()
  const { pem, signer } = newKey()
  await sealAll(world, signer)
  await pay(world)
  await expect(sealOnce(world.db, undefined)).rejects.toThrow(/this process has no key/)
  const successor = newKey()
  await expect(sealOnce(world.db, successor.signer)).rejects.toThrow(/not signed with a key that this process knows/)
  const publicHalf = createPublicKey(pem).export({ type: 'spki', format: 'pem' }).toString()
  await sealAll(world, sealSigner(publicHalf + successor.pem))
  const publicKeys = [pem, successor.pem].flatMap(sealPublicKeys)
  expect(await wrongChecks(world, { publicKeys })).toEqual({})
})

test.each([
  { what: 'the head beside its key', hasAnchor: false },
  { what: 'the anchor', hasAnchor: true },
])('a sealer that is started again knows the chain by $what, and signs no other', async ({ hasAnchor }) => {
  const world = await createWorld()
  const folder = await useScratchFolder()
  const { pem } = newKey()
  const settings = { keyFile: join(folder, 'key.pem'), anchorFile: hasAnchor ? join(folder, 'anchor') : undefined }
  await writeFile(settings.keyFile, pem)
  const complaints: string[] = []
  const sealed = async () => {
    const sealer = await startSealer({ db: world.db, settings, complain: (sentence) => void complaints.push(sentence) })
    try {
      const isDone = async () => complaints.length > 0 || (await unsealed(world)) === 0n
      await pollUntil(isDone, { what: 'the seal' })
    } finally {
      await sealer.stop()
    }
  }
  await sealed()
  await pay(world)
  await sealed()
  expect(complaints).toEqual([])
  await forge(world, async (client) => void (await client.query('delete from seal')))
  await sealed()
  expect(complaints).toEqual([expect.stringContaining('is one that the database does not have')])
  expect(await heights(world)).toEqual([])
})
