import { collectFolder, collectInstalled } from '#tools/sources.ts'
import { toUploads } from '#tools/uploads.ts'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'

async function makeFolder(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'purser-sources-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), text)
  }
  return folder
}

test('a folder gives its Markdown and text files by their paths, in the same order everywhere', async () => {
  const folder = await makeFolder({
    'b.md': 'B',
    'a.txt': 'A',
    'deep/er/c.mdx': 'C',
    'code.ts': 'no',
    'CHANGELOG.md': 'no',
    'LICENSE.txt': 'no',
    'SECURITY.md': 'no',
    'code_of_conduct.md': 'no',
    'fixtures/d.md': 'no',
    '.hidden/e.md': 'no',
    'node_modules/x/f.md': 'no',
    'security-model.md': 'yes',
  })
  const { documents } = await collectFolder(folder)
  expect(documents.map((document) => document.source)).toEqual(['a.txt', 'b.md', 'security-model.md', 'deep/er/c.mdx'])
})

test('identical, huge and binary files are counted, not taken; links are not followed', async () => {
  const folder = await makeFolder({ 'a.md': 'Same', 'b.md': 'Same', 'c.md': 'x'.repeat(600_000), 'd.txt': 'a\0b' })
  await symlink(folder, join(folder, 'loop'))
  const { documents, skipped } = await collectFolder(folder)
  expect(documents).toEqual([{ source: 'a.md', text: 'Same' }])
  expect(skipped).toMatchObject({ duplicate: 1, too_large: 1, not_text: 1, over_the_limit: 0 })
})

test('installed packages give their Markdown and the comments of their declarations', async () => {
  const root = await makeFolder({
    'alpha/README.md': '# Something',
    'alpha/test/notes.md': 'no',
    'alpha/dist/index.d.ts': '/** Starts it. */\nexport declare function start(): void;',
    'alpha/dist/index.cjs.d.ts': '/** Starts it. */\nexport declare function start(): void;',
    'alpha/node_modules/beta/README.md': 'Old beta',
    '@scope/beta/docs/guide.md': 'Guide',
    '.bin/x.md': 'no',
  })
  const { documents } = await collectInstalled(root)
  expect(documents.map(({ source, title }) => [source, title])).toEqual([
    ['@scope/beta/docs/guide.md', undefined],
    ['alpha/README.md', 'alpha'],
    ['alpha/node_modules/beta/README.md', 'alpha/node_modules/beta'],
    ['alpha/dist/index.cjs.d.ts', 'alpha dist/index.cjs'],
  ])
  expect(documents.at(-1)?.text).toContain('Starts it.')
})

test('uploads keep the order and the limits of the API', () => {
  const documents = Array.from({ length: 450 }, (_, index) => ({ source: `${index}.md`, text: '"'.repeat(20_000) }))
  const uploads = toUploads(documents)
  expect(uploads.flat()).toEqual(documents)
  for (const upload of uploads) {
    expect(upload.length).toBeLessThanOrEqual(200)
    expect(Buffer.byteLength(JSON.stringify({ documents: upload }))).toBeLessThanOrEqual(4 * 1024 * 1024)
  }
  expect(toUploads([])).toEqual([])
})
