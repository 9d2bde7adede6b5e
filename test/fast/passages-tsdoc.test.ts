import { splitDocument } from '#tools/passages.ts'
import { extractTsdoc, toMarkdown } from '#tools/tsdoc.ts'
import { expect, test } from 'vitest'

const names = (text: string) => extractTsdoc(text).map((symbol) => symbol.name)

test('a comment goes to the symbol below it, with the names it stands in', () => {
  expect(
    names(`
      import { x } from './x.js';
      /** Makes one. */
      export declare function make(options: { size: number; }): Thing;
      export interface Thing {
        /** How large. */
        readonly size: number;
        nested: {
          /** How deep. */
          depth?: number;
        };
        /** Ends it. */
        close(): void;
      }
      declare namespace outer {
        /** A kind. */
        type Kind = 'a' | 'b';
      }
      /** All done. */
      export const done: boolean;
    `),
  ).toEqual(['make', 'Thing.size', 'Thing.nested.depth', 'Thing.close', 'outer.Kind', 'done'])
})

test('files without semicolons read the same', () => {
  expect(
    names(`interface Options {
  plain: string
  /** Levels. */
  level: string
  /** Called on
   * each child. */
  onChild(child: (name: string) => void): void
}
/** A maker. */
export type Make = (options: Options) => void

interface Other {
  /** Last. */
  last: number
}`),
  ).toEqual(['Options.level', 'Options.onChild', 'Make', 'Other.last'])
})

test('what is private or marked internal is left out, and so are comments that belong to nothing', () => {
  expect(
    names(`
      /** About the file. */
      /** Shown. */
      export declare class A {
        /** Hidden. */
        private secret: string;
        /** @internal */
        inner(): void;
        /** Open. */
        open(): void;
      }
      /** Dangling. */
    `),
  ).toEqual(['A', 'A.open'])
})

test('braces and comment marks in strings and types open nothing', () => {
  expect(
    names(`
      type Glob = '/** {' | "}" | \`\${string}{\`;
      // /** not a doc comment {
      /** Real. */
      declare const real: Record<string, { a: 1; }>;
    `),
  ).toEqual(['real'])
})

test('the comment becomes Markdown with its declaration', () => {
  const symbols = extractTsdoc(`
    export interface Pool {
      /**
       * Takes a client, see {@link Client} or {@link release | giving back}.
       *
       * ### Examples
       *
       * \`\`\`ts
       * const client = await pool.take()
       * \`\`\`
       * @param name - of the client
       * @returns a client
       * @since 1.0
       */
      take(name: string): Promise<Client>;
    }
  `)
  expect(toMarkdown(symbols)).toBe(`## \`Pool.take\`

\`\`\`ts
take(name: string): Promise<Client>
\`\`\`

Takes a client, see \`Client\` or giving back.

##### Examples

\`\`\`ts
const client = await pool.take()
\`\`\`
- \`name\`: of the client
Returns: a client`)
  expect(splitDocument({ source: 'pool.d.ts', title: 'pool', text: toMarkdown(symbols) }).passages[0]?.heading).toBe(
    '`Pool.take`',
  )
})
